//go:build linux && amd64

package store

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// experiment is a directory and the recording of its changes.
type experiment struct {
	t      *testing.T
	dir    string
	mode   SyncMode
	next   bool     // the child acts as a release with the next schema
	base   promised // the promises before the recording
	doing  string
	tracer *tracer
	judge  *judge
}

func newExperiment(t *testing.T, mode SyncMode) *experiment {
	dir, err := filepath.EvalSymlinks(inMemory(t))
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, copiesName), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &experiment{t: t, dir: dir, mode: mode}
}

// inMemory returns a temporary directory, in memory if possible: there a sync costs nothing, and these tests open
// thousands of states.
func inMemory(t *testing.T) string {
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		if dir, err := os.MkdirTemp("/dev/shm", "hsu-powerloss-"); err == nil { //nolint:usetesting // that is on a disk
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			return dir
		}
	}
	return t.TempDir()
}

// prepareOld makes a state with the previous schema.
func (x *experiment) prepareOld() {
	dir := filepath.Join(x.dir, stateName)
	db, err := Open(dir, Options{MaxEvents: eventsKept})
	if err != nil {
		x.t.Fatal(err)
	}
	for n := range 3 {
		put(x.t, db, nthChange(n+1)...)
	}
	add(x.t, db, 2)
	x.next = true
	x.base = promised{opened: true, id: db.MasterID(), least: 3, most: 3, counted: 2, begun: 2, mayBeClean: true}
	mustClose(x.t, db)
}

// run plays the script in a child and records it.
func (x *experiment) run(script string, env ...string) (unix.WaitStatus, string, error) {
	if x.tracer == nil {
		var err error
		if x.tracer, err = newTracer(x.dir); err != nil {
			return 0, "", err
		}
	}
	output, err := os.Create(filepath.Join(x.t.TempDir(), "output"))
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = output.Close() }()
	env = append(append(os.Environ(),
		childEnv+"=powerloss", childDirEnv+"="+filepath.Join(x.dir, stateName), scriptEnv+"="+script), env...)
	if x.mode == SyncInterval {
		env = append(env, childModeEnv+"=interval")
	}
	if x.next {
		env = append(env, nextEnv+"=1")
	}
	status, err := x.tracer.run(env, output, time.Minute)
	if err != nil {
		return status, "", fmt.Errorf("record the child: %w", err)
	}
	said, err := os.ReadFile(output.Name())
	if err != nil {
		return status, "", err
	}
	x.tracer.rec.settle(nil)
	return status, string(said), x.faithful()
}

// faithful compares the recording with the actual files: the recording must not miss anything.
func (x *experiment) faithful() error {
	r := x.tracer.rec
	if err := r.overlapping(); err != nil {
		return err
	}
	there, err := readFiles(x.dir)
	if err != nil {
		return err
	}
	recorded := r.after(powerCut{moment: r.end, others: fate{kept: true}})
	if !maps.EqualFunc(there, recorded, func(a, b []byte) bool {
		return bytes.Equal(a, b) && (a == nil) == (b == nil)
	}) {
		return fmt.Errorf("the recording misses something: there is %s, recorded %s", there, recorded)
	}
	return nil
}

func (f diskImage) String() string {
	sizes := make(map[string]int)
	for path, b := range f {
		sizes[path] = len(b)
	}
	return fmt.Sprint(sizes)
}

// mustRun is run for a child that must succeed.
func (x *experiment) mustRun(script string, env ...string) {
	x.t.Helper()
	status, said, err := x.run(script, env...)
	if err != nil {
		x.t.Fatal(err)
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		x.t.Fatalf("the child ended with %#x: %s", status, said)
	}
}

// violation is a promise broken by a power cut.
type violation struct {
	cut powerCut
	err error
}

// powerLoss cuts the power at every moment from position from on. Syncs selected by skip are treated as if they had
// never been called; in that case it stops at the first broken promise.
func (x *experiment) powerLoss(from int, skip func(syncCall) bool, e effort) []violation {
	if x.judge == nil {
		x.judge = newJudge(x.t, x.next)
	}
	r := x.tracer.rec
	r.settle(skip)
	defer r.settle(nil)
	seed := seedOf(x.t)
	moments := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var broken []violation
	over := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return skip != nil && len(broken) > 0
	}
	fail := func(c powerCut, err error) {
		mu.Lock()
		defer mu.Unlock()
		broken = append(broken, violation{c, err})
	}
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for p := range moments {
				want, err := r.promises(p, x.mode, x.base)
				if err != nil {
					fail(powerCut{moment: p, what: "none: under way"}, err)
					continue
				}
				r.cuts(p, e, rand.New(rand.NewPCG(seed, uint64(p))), func(c powerCut) {
					if over() {
						return
					}
					if err := x.judge.check(x.judge.look(r.after(c)), want); err != nil {
						fail(c, err)
					}
				})
			}
		})
	}
	chance := rand.New(rand.NewPCG(seed, uint64(from)))
	for p, said := range r.moments() {
		// The moments right after a fault matter most.
		if p >= from && (said || p < from+12 || chance.IntN(e.moments) == 0) && !over() {
			moments <- p
		}
	}
	close(moments)
	wg.Wait()
	return broken
}

// report fails the test if promises were broken, and logs how many cases were tried.
func (x *experiment) report(broken []violation) {
	x.t.Helper()
	r := x.tracer.rec
	for i, v := range broken {
		if i == 10 {
			x.t.Errorf("and %d more", len(broken)-i)
			break
		}
		x.t.Errorf("power cut at %s; %s: %v", r.where(v.cut.moment), v.cut.what, v.err)
	}
	x.t.Logf("SEED=%d: %d system calls recorded, power cut at %d moments in %d ways, %d of them different states",
		seedOf(x.t), x.tracer.changes, len(maps.Collect(r.moments())), x.judge.cuts, len(x.judge.seen))
}

// where describes a position in words.
func (r *recording) where(p int) string {
	last, said := "the start", "nothing"
	for _, a := range r.acts {
		if a.start < p {
			last = a.what
		}
	}
	for _, m := range r.marks {
		if m.at < p {
			said = m.text
		}
	}
	return fmt.Sprintf("%d, after %q, the child having said %q", p, last, said)
}
