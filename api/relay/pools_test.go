package relay

import (
	"testing"

	"github.com/core-tools/hsu-master/supervisor/services"
)

// An endpoint keeps its pool while that is in use. A pool that has been given up opens no streams, and another one
// takes its place, at once for a call that has it already.
func TestPools(t *testing.T) {
	s := newPools(func(e *services.Endpoint) *pool { return &pool{endpoint: e} })
	e, other := &services.Endpoint{}, &services.Endpoint{}
	used, unused := s.of(e, nil), s.of(other, nil)
	if used == unused || s.of(e, nil) != used || s.of(e, unused) != used {
		t.Error("an endpoint must have one pool, its own")
	}
	used.conns = []*backendConn{nil}
	s.sweep()
	if used.gone || s.of(e, nil) != used {
		t.Error("a pool with a connection is given up")
	}
	if !unused.gone || len(s.all()) != 1 {
		t.Error("a pool without connections is kept")
	}
	used.gone = true // between the two steps of sweep
	if p := s.of(e, used); p == used || s.of(e, used) != p {
		t.Error("a call that has a pool that was given up gets it again")
	}
}
