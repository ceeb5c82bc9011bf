package process

import (
	"net"
	"os"
	"slices"
	"testing"
)

// wantPorts checks the ports on which a family listens.
func wantPorts(t *testing.T, f Family, want ...int) {
	t.Helper()
	ctx, cancel := testDeadline()
	defer cancel()
	got, err := f.ListensOn(ctx)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("ListensOn() = %v, %v, want %v", got, err, want)
	}
}

func TestListensOn(t *testing.T) {
	tests := []struct {
		name      string
		behaviour string
		args      []string
		ports     int
	}{
		{"itself", "listen", []string{"127.0.0.1:0"}, 1},
		{"itself on every address", "listen", []string{":0"}, 1},
		{"children of a prefork server", "prefork", []string{"127.0.0.1:0"}, 1},
		{"grandchild in another session", "double-fork", []string{"listen", "127.0.0.1:0"}, 1},
		{"child beside itself", "spawn", []string{"listen", "127.0.0.1:0"}, 1},
		{"nobody", "sleep", nil, 0},
	}
	// A stranger's listeners do not count, nor does a connection of a member.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	eachSource(t, func(t *testing.T) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				w := startWorker(t, tt.behaviour, tt.args...)
				var ports []int
				for range tt.ports {
					ports = append(ports, w.expectPID(t, "port"))
				}
				if tt.ports == 0 {
					w.expectPID(t, "ready")
				}
				wantPorts(t, w.family, ports...)
				if tt.ports > 0 {
					wantPorts(t, w.onlyLeader(), ports...)
				}
			})
		}
	})
}

// A process belongs to a family by each of the signs by which a kill finds it.
func TestIncludes(t *testing.T) {
	stranger := startWorker(t, "sleep")
	stranger.expectPID(t, "ready")
	for _, tt := range []struct {
		behaviour []string
		living    int
	}{
		{[]string{"sleep"}, 1},
		{[]string{"spawn", "sleep"}, 2},
		{[]string{"double-fork", "sleep"}, 2},
		{[]string{"leave", "sleep"}, 1},
		{[]string{"clear", "sleep"}, 1},
		{[]string{"double-fork", "clear", "sleep"}, 2},
		{[]string{"leave", "clear", "sleep"}, 1},
		{[]string{"close-lease", "clear", "sleep"}, 1},
		{[]string{"spawn", "close-lease", "clear", "sleep"}, 2},          // by descent alone
		{[]string{"clear", "close-lease", "spawn", "spawn", "sleep"}, 3}, // the same, and the second generation
	} {
		w := startWorker(t, tt.behaviour[0], tt.behaviour[1:]...)
		for range tt.living {
			pid := w.expectPID(t, "ready")
			if !w.family.Includes(pid) {
				t.Errorf("%v: process %d is not included", tt.behaviour, pid)
			}
			if stranger.family.Includes(pid) {
				t.Errorf("%v: process %d is included in another family", tt.behaviour, pid)
			}
		}
		for _, other := range []int{stranger.PID(), os.Getpid(), os.Getppid(), 1, 0, -1, 1<<22 + 1} {
			if w.family.Includes(other) {
				t.Errorf("%v: process %d is included", tt.behaviour, other)
			}
		}
	}
}
