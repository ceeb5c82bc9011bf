// Package crashpoint names the places where a crash of the master is most
// telling: right before and after durable state or the world changes.
//
// Without the build tag "crashpoints" a point costs nothing and does nothing.
package crashpoint

// Names of the points. A test kills the master at one by its name.
const (
	BeforeCommit    = "before-commit"
	AfterCommit     = "after-commit"
	BeforeFork      = "before-fork"
	AfterFork       = "after-fork"
	BeforePIDRecord = "before-pid-record"
	AfterPIDRecord  = "after-pid-record"
)
