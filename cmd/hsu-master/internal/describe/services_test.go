package describe

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
)

func TestServicesArePrintedWithWhatIsSeldom(t *testing.T) {
	list := []*adminpb.Service{{
		Name: "pkg.A", Waiting: 1,
		Endpoints: []*adminpb.Endpoint{
			{
				Address: "127.0.0.1:1", Worker: "worker-0", Source: "worker", Healthy: true,
				Ejected: true, EjectedFor: durationpb.New(4321 * time.Millisecond),
				Figures: &adminpb.Figures{
					Calls: 9, InFlight: 2, Failures: map[string]uint64{"UNAVAILABLE": 3, "NOT_FOUND": 1},
					Retries: 2, Ejections: 1,
				},
			},
			{Address: "127.0.0.1:2", Source: "registered", Reason: "connection refused\x1b[2J"},
		},
	}, {Name: "pkg.B"}}
	const table = `SERVICE  ENDPOINT     WORKER    SOURCE      STATE        CALLS  IN FLIGHT  FAILED  P50  P99
pkg.A    127.0.0.1:1  worker-0  worker      ejected      9      2          4       -    -
pkg.A    127.0.0.1:2  -         registered  not ready    0      0          0       -    -
pkg.B    -            -         -           no endpoint  -      -          -       -    -

pkg.A has 1 call waiting for an endpoint

pkg.A at 127.0.0.1:1 has failed calls: 1 NOT_FOUND, 3 UNAVAILABLE

pkg.A at 127.0.0.1:1 has lost 2 calls that went on to another endpoint

pkg.A at 127.0.0.1:1 was taken out for failing again and again, 1 time, and is back in 4.3s

pkg.A at 127.0.0.1:2 is not ready: connection refused\x1b[2J
`
	var out strings.Builder
	if err := Services(&out, list, true); err != nil || out.String() != table {
		t.Errorf("%v, printed\n%s\nwant\n%s", err, out.String(), table)
	}
}
