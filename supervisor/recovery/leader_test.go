package recovery

import (
	"runtime"
	"testing"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// The variables of a process prove nothing: only users as which the master may have started the worker can claim its
// slot.
func TestLeaderIsOfAUserThatTheMasterHasStarted(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only there has a worker another user")
	}
	const (
		master, user, former, third = 0, 54321, 54322, 54323 // without entries on any host
		recorded, other             = "recorded", "other"
	)
	of := process.Attributes{User: "54321", Group: "7"}
	for name, tt := range map[string]struct {
		unit  process.Attributes
		uid   uint32
		token string
		want  bool
	}{
		"of the master":                        {of, master, other, true},
		"of the unit":                          {of, user, other, true},
		"of the record":                        {of, former, recorded, true},
		"of the record, with another token":    {of, former, other, false},
		"of a third user":                      {of, third, other, false},
		"of a third user, with the token":      {of, third, recorded, false},
		"of the unit, which has no user":       {process.Attributes{}, user, other, false},
		"of the unit, whose user is not known": {process.Attributes{User: "no-such-user"}, user, other, false},
	} {
		in := inspection{rc: &Context{UID: master, Inspector: holdsNothing{}}, s: &Slot{
			ID: "a-0", Unit: &unit.Spec{Name: "a", Attributes: tt.unit},
			Rec: records.Worker{Instance: &records.Instance{Token: recorded, UID: former}},
			Found: ScanResult{Holders: []process.Holder{
				{PID: 2, PGID: 2, SID: 2, UID: tt.uid, Token: tt.token},
			}},
		}}
		if got := in.leader(tt.token) != nil; got != tt.want {
			t.Errorf("%s: found %t, want %t", name, got, tt.want)
		}
	}
}

// holdsNothing is an inspector for which no process has a lease.
type holdsNothing struct{ launcher.Inspector }

func (holdsNothing) Holds(string, records.Instance, int) bool { return false }
