//go:build e2e && crash && linux

package crash

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/migrations"
)

// A crash at every step. Each operation is run once to learn which moments it passes. Then, for each moment, it is
// run again with a master that is killed there, another master is started, and every promise is checked. Then the
// recovering master is killed too, at each moment that the recovery passes; then, for triples drawn by SEED, the
// master that recovers from that.
//
//	SEED=     of the random choices; if it is not set, one is generated and printed
//	PAIRS=    all for every pair in every operation: half an hour on two processors;
//	          else every pair in one of the operations that have it, drawn by SEED
//	TRIPLES=  number of triples, 300 if not set
//	BUDGET=   minutes after which no more pairs and triples are begun, 0 or not set for no limit; their number is in
//	          the log
//	LANES=    number of concurrent trials, 6 if not set
//	OP=       only this operation
//	KILLS=    1 for no pairs and triples
//	CRASH_TABLE=FILE  to write the table to as well
func TestCrashMatrix(t *testing.T) {
	began := time.Now()
	defer debug.SetGCPercent(debug.SetGCPercent(800))                        // this test is limited by processor time
	seed := uint64(number(t, "SEED", int(time.Now().UnixNano()&0xffffffff))) //nolint:gosec // not negative
	t.Logf("SEED=%d", seed)
	for range laterSteps { // so that this process can read the state that the masters of the migration leave
		migrations.All = append(migrations.All, migrations.Step{})
	}
	m := &matrix{
		t: t, base: trialFolder(t, ramDisk), disk: trialFolder(t, ""), lanes: number(t, "LANES", 6), failures: 10,
	}
	budget := time.Duration(number(t, "BUDGET", 0)) * time.Minute
	var ops []*operation
	for _, op := range operations() {
		if only := os.Getenv("OP"); only == "" || only == op.name {
			ops = append(ops, op)
		}
	}

	depth := number(t, "KILLS", 3)
	learned := m.run("learning", alone(ops))
	var singles [][]trial
	for _, o := range learned {
		for batch := range slices.Chunk(singlesOf(o), 6) {
			singles = append(singles, batch)
		}
	}
	ones := m.run("singles", singles)
	var pairs [][]trial
	for _, o := range ones {
		if depth > 1 {
			pairs = append(pairs, pairsOf(o))
		}
	}
	if os.Getenv("PAIRS") != "all" {
		pairs = onceEach(pairs, rand.New(rand.NewPCG(seed, 2))) //nolint:gosec // a seed makes the run repeatable
	}
	if budget > 0 {
		m.until = began.Add(budget)
	}
	twos := m.run("pairs", pairs)
	m.unreached(ones, twos)
	//nolint:gosec // a seed makes the run repeatable
	threes := m.run("triples", triplesOf(twos, number(t, "TRIPLES", 300), rand.New(rand.NewPCG(seed, 3))))

	table := tabulate(ops, ones, twos, threes)
	table.check(t)
	text := fmt.Sprintf("%s\n%s on %s, %d lanes, SEED=%d.\n",
		table, time.Since(began).Round(time.Second), time.Now().Format(time.DateOnly), m.lanes, seed)
	t.Logf("the matrix: trials by the point and the operation of the first kill\n\n%s", text)
	if path := os.Getenv("CRASH_TABLE"); path != "" {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	// A summary after the table, at the end of the log.
	for _, o := range slices.Concat(learned, ones, twos, threes) {
		if o.err != nil {
			t.Logf("did not hold: %s: %.300s", o, o.err.Error())
		}
	}
}

// alone returns the runs without a kill.
func alone(ops []*operation) (batches [][]trial) {
	for _, op := range ops {
		batches = append(batches, []trial{{op: op}})
	}
	return batches
}

// singlesOf returns the trials of one kill: at every moment that the operation passes; if it passes a moment more
// than once, at the first, the last and one between.
func singlesOf(o outcome) (all []trial) {
	for _, name := range slices.Sorted(maps.Keys(o.passed)) {
		n := o.passed[name]
		nths := []int{1, (n + 1) / 2, n}
		if isCommit(name) {
			nths = nths[:2]
		}
		for _, nth := range slices.Compact(nths) {
			all = append(all, trial{o.op, []moment{{name, nth}}, n == 1})
		}
	}
	return all
}

// isCommit reports whether it is a commit. The number of the last one varies, because it depends on how many
// workers share a commit.
func isCommit(name string) bool { return moment{name: name}.point() == crashpoint.Commit }

// pairsOf returns the trials of one more kill after those of o, at every moment that the recovery passes: the first
// time or, if o's own moment is not the first of its name, and for every other moment that occurs only once, the
// last time.
func pairsOf(o outcome) (all []trial) {
	if o.reached < len(o.kills) || o.err != nil {
		return nil
	}
	at := o.kills[len(o.kills)-1]
	for i, name := range slices.Sorted(maps.Keys(o.recovery)) {
		second := moment{name, 1}
		if !isCommit(name) && (at.nth > 1 || o.once && i%2 == 1) {
			second.nth = o.recovery[name]
		}
		all = append(all, trial{o.op, append(slices.Clone(o.kills), second), false})
	}
	return all
}

// onceEach assigns each pair of moments to one of the operations that have it.
func onceEach(pairs [][]trial, rng *rand.Rand) [][]trial {
	all := slices.Concat(pairs...)
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	seen := map[[2]string]bool{}
	all = slices.DeleteFunc(all, func(tr trial) bool {
		pair := [2]string{tr.kills[0].name, tr.kills[1].name}
		defer func() { seen[pair] = true }()
		return seen[pair]
	})
	slices.SortStableFunc(all, func(a, b trial) int { return cmp.Compare(a.op.name, b.op.name) })
	return slices.Collect(slices.Chunk(all, 10))
}

// triplesOf draws trials of a third kill.
func triplesOf(twos []outcome, n int, rng *rand.Rand) [][]trial {
	whole := slices.DeleteFunc(slices.Clone(twos), func(o outcome) bool { return o.reached < 2 || o.err != nil })
	slices.SortFunc(whole, func(a, b outcome) int { return cmp.Compare(a.String(), b.String()) })
	var all []trial
	for range min(n, len(whole)) {
		if thirds := pairsOf(whole[rng.IntN(len(whole))]); len(thirds) > 0 {
			all = append(all, thirds[rng.IntN(len(thirds))])
		}
	}
	// Group the trials of an operation: they share rigs.
	slices.SortStableFunc(all, func(a, b trial) int { return cmp.Compare(a.op.name, b.op.name) })
	return slices.Collect(slices.Chunk(all, 10))
}

// matrix runs trials, several at a time.
type matrix struct {
	t        *testing.T
	base     string // the folder of the rigs
	disk     string // likewise, on a disk
	lanes    int
	mu       sync.Mutex
	failures int       // failures that are still reported in full
	until    time.Time // no batch is begun after that; zero for no limit
}

// run runs batches of trials, each in one lane, and returns the outcomes in their order.
func (m *matrix) run(what string, batches [][]trial) []outcome {
	planned := map[string]int{}
	for _, tr := range slices.Concat(batches...) {
		planned[tr.op.name]++
	}
	m.t.Logf("%s: %v", what, planned)
	began, cpu := time.Now(), cpuTime()
	results := make([][]outcome, len(batches))
	queue := make(chan int)
	var lanes sync.WaitGroup
	for range m.lanes {
		lanes.Go(func() {
			l := &lane{matrix: m}
			defer l.retire()
			for i := range queue {
				for _, tr := range batches[i] {
					results[i] = append(results[i], l.try(tr))
				}
			}
		})
	}
	left := 0
	for _, i := range inTurn(batches) {
		if !m.until.IsZero() && time.Now().After(m.until) {
			left += len(batches[i])
			continue
		}
		queue <- i
	}
	close(queue)
	lanes.Wait()
	all := slices.Concat(results...)
	reached := 0
	for _, o := range all {
		if o.reached == len(o.kills) {
			reached++
		}
	}
	m.t.Logf("%s: %d trials, %d reached, in %s (%s of CPU time), %d left out for lack of time", what, len(all), reached,
		time.Since(began).Round(time.Second/10), (cpuTime() - cpu).Round(time.Second/10), left)
	return all
}

// inTurn orders the batches so that the operations alternate: some mostly wait, others mostly compute.
func inTurn(batches [][]trial) []int {
	turn, nth := make([]int, len(batches)), map[*operation]int{}
	order := make([]int, len(batches))
	for i, batch := range batches {
		order[i] = i
		if len(batch) > 0 {
			turn[i] = nth[batch[0].op]
			nth[batch[0].op]++
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(turn[a], turn[b]) })
	return order
}

// unreached logs which moments were not reached, and how often.
func (m *matrix) unreached(outcomes ...[]outcome) {
	times := map[string]int{}
	for _, o := range slices.Concat(outcomes...) {
		if o.err == nil && o.reached < len(o.kills) {
			times[o.kills[o.reached].String()]++
		}
	}
	m.t.Logf("not reached: %v", times)
}

// cpuTime returns the processor time of this process and the masters, without the workers.
func cpuTime() time.Duration {
	var all time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var used unix.Rusage
		if unix.Getrusage(who, &used) == nil {
			all += time.Duration(used.Utime.Nano() + used.Stime.Nano())
		}
	}
	return all
}

func (m *matrix) fail(what string, err error, r *rig) {
	m.mu.Lock()
	defer m.mu.Unlock()
	report := ""
	if m.failures--; m.failures >= 0 {
		report = "\n" + r.report()
	}
	m.t.Errorf("%s: %v%s", what, err, report)
}
