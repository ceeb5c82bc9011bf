package process

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/core-tools/hsu-master/identity"
)

func TestSearchFindsUnderAnotherNumber(t *testing.T) {
	eachProof(t, func(t *testing.T, proof identity.Proof) {
		ctx, cancel := testDeadline()
		defer cancel()
		w, other := startWorker(t, "sleep"), startWorker(t, "sleep")
		w.expect(t, "ready")
		other.expect(t, "ready")
		id := w.Identity()
		id.PID, id.PIDNamespace = 7, 1 // as in a container
		if _, err := Open(id, w.family.Token); !errors.Is(err, ErrElsewhere) || !errors.Is(err, ErrUnverifiable) {
			t.Errorf("Open: %v, want ErrElsewhere and ErrUnverifiable", err)
		}
		p, err := Search(ctx, id, w.family.Token)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := p.Identity(), w.Identity(); got != want {
			t.Errorf("found %+v, want %+v", got, want)
		}
		p.Close()

		other.family.Kill(ctx)
		waitDone(t, other.Process)
		other.Exit()
		id = other.Identity()
		id.PIDNamespace = 1
		p, err = Search(ctx, id, other.family.Token)
		if !errors.Is(err, ErrUnverifiable) || errors.Is(err, ErrGone) {
			t.Errorf("Search of one that is not to be seen: %v, want ErrUnverifiable", err)
		}
		if err == nil {
			p.Close()
		}
	})
}

func TestPortIsHiddenOnlyByWhoCannotBeSeen(t *testing.T) {
	ctx, cancel := testDeadline()
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	w := startWorker(t, "listen", "127.0.0.1:0")
	for _, p := range []int{port, w.expectPID(t, "port")} {
		if hidden, err := PortHidden(ctx, p); hidden || err != nil {
			t.Errorf("PortHidden(%d) = %v, %v, want it seen", p, hidden, err)
		}
	}
	if os.Geteuid() == 0 {
		asker := startWorker(t, "nobody-hidden", fmt.Sprint(port))
		if got := asker.expect(t, "hidden"); got != "true" {
			t.Errorf("another user is told %s, want true", got)
		}
	}
	l.Close()
	if hidden, err := PortHidden(ctx, port); hidden || err != nil {
		t.Errorf("PortHidden of a free port = %v, %v", hidden, err)
	}
	if _, err := PortHidden(ctx, 0); err == nil {
		t.Error("PortHidden(0) has an answer")
	}
}
