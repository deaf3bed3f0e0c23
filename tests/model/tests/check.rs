//! Every state that the model can reach, as the product is and with one rule taken out.

use cortex_model::{Anchors, Budget, Closely, Cortex, Rules};
use stateright::{Checker as _, HasDiscoveries, Model as _};

const NOTHING: Budget = Budget { asks: 2, losses: 0, lost_mints: 0, slow: 0, kills: 0, failovers: 0 };
const COMMITS: Closely = Closely { commits: true, rounds: false };
const ROUNDS: Closely = Closely { commits: false, rounds: true };
const NEITHER: Closely = Closely { commits: false, rounds: false };
const BOTH: Closely = Closely { commits: true, rounds: true };

fn cortex(budget: Budget, closely: Closely) -> Cortex {
    Cortex { rules: Rules::ALL, anchors: Anchors::Shared, budget, closely }
}

/// That every property holds, each of those that say "sometimes" by an example.
fn holds(budget: Budget, closely: Closely) {
    let checker = cortex(budget, closely).checker().threads(2).spawn_bfs().join();
    println!("{budget:?}, {closely:?}: {} states", checker.unique_state_count());
    checker.assert_properties();
}

/// Looks for a counterexample to this property until there is one.
fn breaks(cortex: Cortex, property: &'static str) {
    let found = HasDiscoveries::AnyOf([property].into());
    let path = cortex.checker().finish_when(found).spawn_bfs().join().discovery(property);
    let path = path.unwrap_or_else(|| panic!("{:?}: no counterexample to {property:?}", cortex.rules));
    println!("{property}, but: {:?}", path.into_actions());
}

#[test]
fn it_holds_where_nothing_goes_wrong() {
    holds(NOTHING, ROUNDS);
    holds(NOTHING, COMMITS);
    holds(Budget { asks: 1, ..NOTHING }, BOTH);
}

#[test]
fn it_holds_while_commits_and_answers_are_lost_or_late() {
    holds(Budget { losses: 1, ..NOTHING }, COMMITS);
    holds(Budget { asks: 1, losses: 2, lost_mints: 1, slow: 1, ..NOTHING }, COMMITS);
}

#[test]
fn it_holds_while_replicas_are_killed_and_slow() {
    holds(Budget { kills: 1, ..NOTHING }, ROUNDS);
    holds(Budget { kills: 1, ..NOTHING }, COMMITS);
    holds(Budget { asks: 1, kills: 1, slow: 1, losses: 1, ..NOTHING }, COMMITS);
}

#[test]
fn it_holds_while_a_failover_loses_commits() {
    holds(Budget { failovers: 1, ..NOTHING }, NEITHER);
    holds(Budget { asks: 1, failovers: 1, ..NOTHING }, ROUNDS);
    holds(Budget { asks: 1, failovers: 1, ..NOTHING }, COMMITS);
}

/// One rule, and what breaks without it.
struct Rule {
    without: Rules,
    budget: Budget,
    closely: Closely,
    breaks: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        without: Rules { intent_first: false, ..Rules::ALL },
        budget: NOTHING,
        closely: COMMITS,
        breaks: "every mint has an earlier durable intent",
    },
    Rule {
        without: Rules { outcome_first: false, ..Rules::ALL },
        budget: NOTHING,
        closely: COMMITS,
        breaks: "a credential leaves only after its outcome is durable",
    },
    Rule {
        without: Rules { compare_tree: false, ..Rules::ALL },
        budget: NOTHING,
        closely: ROUNDS,
        breaks: "where nothing was lost no fault is found",
    },
    Rule {
        without: Rules { pen_looks: false, ..Rules::ALL },
        budget: Budget { losses: 1, ..NOTHING },
        closely: COMMITS,
        breaks: "where nothing was lost no fault is found",
    },
    Rule {
        without: Rules { anchor_first: false, ..Rules::ALL },
        budget: Budget { failovers: 1, ..NOTHING },
        closely: ROUNDS,
        breaks: "checkpoints continue each other",
    },
    Rule {
        without: Rules { heed_faults: false, ..Rules::ALL },
        budget: Budget { failovers: 1, ..NOTHING },
        closely: NEITHER,
        breaks: "nothing is admitted or signed in fault",
    },
];

#[test]
fn without_any_one_of_its_rules_it_breaks() {
    for rule in RULES {
        breaks(Cortex { rules: rule.without, ..cortex(rule.budget, rule.closely) }, rule.breaks);
    }
}

#[test]
fn replicas_with_an_anchor_each_can_sign_two_histories_after_a_failover() {
    let each = Cortex { anchors: Anchors::Each, ..cortex(Budget { failovers: 1, ..NOTHING }, ROUNDS) };
    breaks(each, "checkpoints continue each other");
}
