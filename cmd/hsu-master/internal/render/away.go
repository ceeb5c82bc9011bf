package render

// MasterAway is what commands that follow or watch say when the master has ended.
const MasterAway = "no master answers any more; this goes on when one does"
