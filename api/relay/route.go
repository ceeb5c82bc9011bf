package relay

import (
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// route is the way of a call, which the call's path decides.
type route struct {
	service    *services.Service // nil for the local server
	counted    bool              // the call must be counted before it is acknowledged
	affinity   string            // the metadata key whose value chooses the endpoint; "" if there is none
	maxMessage int               // bytes
}

// route returns the route of a call. If there is none, it returns the status that ends the call. idempotent means that
// the call has a request id.
func (e *env) route(path string, idempotent bool) (r route, code uint32, message string) {
	name, method, ok := protocol.SplitPath(path)
	switch {
	case !ok:
		return r, protocol.CodeUnimplemented, "malformed method name: " + strconv.Quote(path)
	case e.almostCounted(path):
		return r, protocol.CodeUnimplemented,
			"unknown method " + strings.Clone(method) + " for service " + strings.Clone(name)
	}
	counted := e.opts.Counted[path]
	if !e.localMethods[path] || counted && !idempotent {
		r.service = e.opts.Registry.Service(name)
	}
	policy := e.localPolicies[name]
	if r.service != nil {
		policy = r.service.Policy()
		r.counted, r.affinity = counted, policy.Affinity
	}
	if policy == nil {
		return r, protocol.CodeUnimplemented, "unknown service " + strings.Clone(name)
	}
	r.maxMessage = e.opts.MaxMessage
	if policy.MaxMessage > 0 {
		r.maxMessage = policy.MaxMessage
	}
	return r, protocol.CodeOK, ""
}

// almostCounted reports whether a path differs from that of a counted method in the case of its letters only. The
// routers of some servers, such as ASP.NET Core's, ignore the case.
func (e *env) almostCounted(path string) bool {
	for counted := range e.opts.Counted {
		if len(counted) == len(path) && counted != path && strings.EqualFold(counted, path) {
			return true
		}
	}
	return false
}
