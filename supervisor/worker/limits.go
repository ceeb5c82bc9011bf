package worker

import (
	"strings"

	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/launcher"
)

// enforcement is the state of the limits of the present instance. The worker's goroutine owns it.
type enforcement struct {
	unenforced []string // limits that are not enforced, each with the reason; never changed, only replaced
	said       string   // the last entry of the history
}

// limit sets the limits of the instance. It returns those that are not enforced if the history lacks them, else "".
func (e *enforcement) limit(inst launcher.Family, l cgroup.Limits) (news string) {
	e.unenforced = inst.Limit(l)
	text := strings.Join(e.unenforced, "; ")
	if text == e.said {
		return ""
	}
	e.said = text
	return text
}

// end forgets an instance that is gone.
func (e *enforcement) end() { e.unenforced = nil }
