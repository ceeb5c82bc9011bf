package relay

import (
	"testing"

	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// A method of the local server goes there, a counted one only if the call has a request id. Other methods of the
// service go to its endpoints, and to the local server if there are none.
func TestRoute(t *testing.T) {
	registry := services.New(services.Options{Policies: map[string]services.Policy{
		"pkg.Remote": {MaxMessage: 7, Balance: services.Affinity, Affinity: "user"},
	}})
	registry.Add(&services.Endpoint{}, "pkg.Remote", "pkg.Both")
	local := services.Policy{}
	e := env{
		opts: Options{
			Registry: registry, MaxMessage: 9,
			Counted: map[string]bool{"/pkg.Both/Count": true, "/pkg.Local/Count": true},
		},
		localMethods:  map[string]bool{"/pkg.Both/Own": true, "/pkg.Both/Count": true, "/pkg.Local/Count": true},
		localPolicies: map[string]*services.Policy{"pkg.Both": &local, "pkg.Local": &local},
	}
	remote, both := registry.Service("pkg.Remote"), registry.Service("pkg.Both")
	for name, c := range map[string]struct {
		path       string
		idempotent bool
		want       route
		code       uint32
	}{
		"an endpoint":            {"/pkg.Remote/M", false, route{remote, false, "user", 7}, protocol.CodeOK},
		"not a local method":     {"/pkg.Both/M", false, route{both, false, "", 9}, protocol.CodeOK},
		"a local method":         {"/pkg.Both/Own", false, route{nil, false, "", 9}, protocol.CodeOK},
		"counted":                {"/pkg.Both/Count", false, route{both, true, "", 9}, protocol.CodeOK},
		"counted, with an id":    {"/pkg.Both/Count", true, route{nil, false, "", 9}, protocol.CodeOK},
		"counted, no endpoint":   {"/pkg.Local/Count", false, route{nil, false, "", 9}, protocol.CodeOK},
		"local, unknown method":  {"/pkg.Local/M", false, route{nil, false, "", 9}, protocol.CodeOK},
		"unknown service":        {"/pkg.None/M", false, route{}, protocol.CodeUnimplemented},
		"a path without service": {"/M", false, route{}, protocol.CodeUnimplemented},
		"counted in other case":  {"/pkg.Both/count", false, route{}, protocol.CodeUnimplemented},
	} {
		got, code, message := e.route(c.path, c.idempotent)
		if got != c.want || code != c.code || (code == protocol.CodeOK) != (message == "") {
			t.Errorf("%s: %+v, status %d %q, want %+v, %d", name, got, code, message, c.want, c.code)
		}
	}
}
