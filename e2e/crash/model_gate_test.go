//go:build e2e && linux && (crash || torture)

package crash

import "time"

// gate is the name of the unit that the others of a gated rig depend on.
const gate = "gate"

// gateSettles is the time that a worker of that unit takes to get ready: several clock ticks, in which the kernel gives
// the time of a start.
const gateSettles = 50 * time.Millisecond
