package history

import (
	"testing"

	"github.com/core-tools/hsu-master/store/records"
)

// Types of earlier releases are selected by either name.
func TestOlderTypesAreSelected(t *testing.T) {
	for _, test := range []struct {
		recorded, asked string
		want            bool
	}{
		{"unit-scaled", "scale", true},
		{"scale", "unit-scaled", true},
		{"unit-scaled", "unit-scaled", true},
		{"reloaded", "reload", true},
		{"reload", "reloaded", true},
		{"reloaded", "scale", false},
	} {
		e := records.Entry{Seq: 1, Event: records.Event{Type: test.recorded}}
		if got := (Query{Types: []string{test.asked}}).Match(e); got != test.want {
			t.Errorf("--type %s selects %s: %t, want %t", test.asked, test.recorded, got, test.want)
		}
	}
}
