// Keys and a fresh title. Everything on these pages works without this file.
'use strict';

(() => {
  const typing = (element) => element.closest('input, textarea, select, [contenteditable]') !== null;
  const links = () => [...document.querySelectorAll('[data-keys] a.row, [data-keys] tr[data-href] a.key')];

  function move(step) {
    const all = links();
    if (all.length === 0) return;
    const at = all.indexOf(document.activeElement);
    const next = at === -1 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + step, 0), all.length - 1);
    all[next].focus();
    all[next].scrollIntoView({ block: 'nearest' });
  }

  const press = {
    j: () => move(1),
    k: () => move(-1),
    a: () => document.getElementById('approve')?.focus(),
    d: () => document.getElementById('deny')?.focus(),
    g: () => { window.location.href = '/console'; },
    '/': () => document.querySelector('[data-search]')?.focus(),
    '?': () => document.getElementById('keys')?.showModal(),
  };

  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const act = press[event.key];
    if (!act || document.querySelector('dialog[open]')) return;
    event.preventDefault();
    act();
  });

  // The number in the title follows the list.
  document.addEventListener('htmx:after:swap', () => {
    const list = document.getElementById('waiting');
    if (!list) return;
    const count = Number(list.dataset.count);
    const title = document.title.replace(/^\(\d+\) /, '');
    document.title = count > 0 ? `(${count}) ${title}` : title;
  });
})();
