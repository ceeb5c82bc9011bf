package relay

import (
	"testing"
	"time"

	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/api/relay/retry"
)

// The headers of a request leave as they came, except that a call which is late or sent again has less time left.
func TestHeadersOfARequest(t *testing.T) {
	const began = time.Hour
	var table peers.Table
	account := table.Join(0, peers.ID{})
	var in headers.List
	in.Add(":path", "/s/m")
	in.Add("grpc-timeout", "2S")
	in.Add("user", "u")
	q := request{began: began}
	q.headers.Keep(account, peers.Headers, &in)
	if q.value("user") != "u" || q.value("nobody") != "" {
		t.Errorf("values: %q, %q", q.value("user"), q.value("nobody"))
	}
	for name, c := range map[string]struct {
		deadline retry.Deadline
		now      time.Duration
		again    bool
		want     string
	}{
		"no deadline": {retry.Deadline{}, began + time.Second, true, "2S"},
		"at once":     {retry.DeadlineAfter(began, 2*time.Second), began + time.Microsecond, false, "2S"},
		"late":        {retry.DeadlineAfter(began, 2*time.Second), began + time.Second, false, "1000000u"},
		"again":       {retry.DeadlineAfter(began, 2*time.Second), began, true, "2000000u"},
	} {
		q.deadline = c.deadline
		l := headers.Of(q.headersAt(c.now, c.again))
		names := ""
		for f := range l.All {
			names += f.Name() + " "
		}
		if got, _ := l.Get("grpc-timeout"); got != c.want || names != ":path grpc-timeout user " {
			t.Errorf("%s: a timeout of %s among %s, want %s", name, got, names, c.want)
		}
	}
	if q.headers.Drop(); account.Kept() != 0 {
		t.Errorf("%d bytes are still counted", account.Kept())
	}
}
