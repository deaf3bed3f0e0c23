"""How credentials outlive their leases in long tasks, without user code: while the task runs, and no longer."""
