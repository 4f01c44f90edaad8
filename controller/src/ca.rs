//! Certificate authorities: the identity CA for agents, operators and the controller itself. It never issues a leaf for
//! a public name. Called by `app`, `rpc` and `tasks/identity`.
