package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phayes/freeport"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/leaks"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
	"github.com/core-tools/hsu-master/supervisor/registrations"
	"github.com/core-tools/hsu-master/supervisor/schedule"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

func TestMain(m *testing.M) {
	// The resolver creates a channel at its first use; if that happened inside a bubble, no other bubble could use
	// the resolver.
	if _, err := freeport.GetFreePort(); err != nil {
		panic(err)
	}
	os.Exit(leaks.Run(m, os.Stderr))
}

// defaults is a unit that sets nothing.
var defaults = unit.Spec{}.WithDefaults()

// fakeOS is a world of processes that outlives supervisors, as the real one does.
type fakeOS struct {
	t  *testing.T
	mu sync.Mutex
	// behave is called with each new process; if nil, each process gets ready at once.
	behave    func(*fakeProcess)
	processes map[int]*fakeProcess
	started   map[string]int // worker → number of starts
	attachErr error          // the error of attach
	leaseErr  error          // the error of Lease
	leased    func()         // called by Lease
	scanErr   error
	bootID    string
	birth     time.Time
	// The environment of the processes, set by the master that started them.
	masterID, stateDir string
	leaseHeld          bool // a process that cannot be found holds every lease
	acts               []string
	log                slog.Handler // also gets the masters' log
	endpoints          map[string]*fakeEndpoint
	store              *store.DB // of the last master
	// answers are the answers to checks of types other than auto and process; checks counts those.
	answers map[probe.Type]error
	checks  int
	dials   int // connections to workers
	// readings counts the readings of the usage of processes.
	readings int
	sockets  map[string]*fakeNotify
	// suspended is the time that the machine was suspended: timers do not count it, the clock since the boot does.
	suspended atomic.Int64
	// wall is the wall clock of the masters, nil for the bubble's.
	wall func() time.Time
	// unrotated: no master looks at the logs, which it would do each second.
	unrotated bool
	// onHook is called with each command of a hook that is run; if nil, each is successful at once.
	onHook func(*fakeHook)
	hooks  map[string]bool // the running ones, by id
	// hookErr is the error of each of them, which then does not run.
	hookErr error
}

type fakeProcess struct {
	os     *fakeOS
	pid    int
	worker string
	rec    records.Instance

	startErr    error
	hangs       chan struct{} // the start makes no process until this is closed
	readyAfter  time.Duration // until the port opens; <0: never
	mute        bool          // opens its port, answers no Ping
	pingErr     error         // its answer to Ping
	ignoresTerm bool
	exitsAfter  time.Duration // 0: never
	exitCode    int
	suspended   bool
	load        float64         // the cores that its family uses, from its start
	blocked     bool            // it waits for a disk
	usageErr    error           // the error of CPUTime
	measured    int             // number of CPUTime calls
	limits      []cgroup.Limits // that it was given
	unlimited   string          // why none of them is enforced
	oom         string
	child       bool  // of another process with its token
	elsewhere   bool  // of another state directory
	unreaped    bool  // can still be opened when dead
	diesAtLook  int   // the number of the Done call at which it dies; 0: none
	resident    int64 // its memory
	owner       process.Ownership
	listens     []int // the ports on which it listens; nil: its port
	// offers is the list of its reflection; nil: it has none. asked counts the queries.
	offers     []string
	offerErr   error // returned instead of offers
	offerAfter time.Duration
	asked      int
	statusErr  error // its answer to GetStatus of the DefaultService
	statuses   int   // number of calls of GetStatus
	// Until then its descendants cannot be killed; kills counts the attempts.
	immortalUntil time.Time
	kills         int
	// At that time its descendants exit by themselves.
	childrenUntil  time.Time
	childrenKilled bool

	mu   sync.Mutex
	done chan struct{}
	dead bool
	exit identity.Exit
}

func newFakeOS(t *testing.T) *fakeOS {
	return &fakeOS{
		t: t, processes: map[int]*fakeProcess{}, started: map[string]int{}, birth: time.Now(),
		answers: map[probe.Type]error{},
	}
}

// set changes the world.
func (o *fakeOS) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

func (o *fakeOS) Lease(worker string) (*process.Lease, error) {
	o.mu.Lock()
	err, leased := o.leaseErr, o.leased
	o.mu.Unlock()
	if leased != nil {
		leased()
	}
	if err != nil {
		return nil, err
	}
	return process.CreateLease(launcher.LeasePath(o.t.TempDir(), worker))
}

func (o *fakeOS) Start(
	_ *unit.Spec, worker string, rec records.Instance, _ *process.Lease, _ *os.File,
) (launcher.Instance, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.processes {
		if p.worker == worker && !p.isDead() && !p.elsewhere {
			o.t.Errorf("twin: %s is started while process %d of it lives", worker, p.pid)
		}
	}
	o.started[worker]++
	o.acts = append(o.acts, "start "+worker)
	p := &fakeProcess{
		os: o, pid: 1000 + len(o.processes), worker: worker, rec: rec, owner: process.PortOurs,
		done: make(chan struct{}),
	}
	if o.behave != nil {
		o.behave(p)
	}
	if p.hangs != nil {
		o.mu.Unlock()
		<-p.hangs
		o.mu.Lock()
	}
	if p.startErr != nil {
		return nil, p.startErr
	}
	o.processes[p.pid] = p
	if p.exitsAfter > 0 {
		time.AfterFunc(p.exitsAfter, func() { p.die(identity.Exit{Code: p.exitCode, Source: identity.ExitWait}) })
	}
	return p, nil
}

// Run is the command of a hook, or that of a check: it exits with code 1 if checks of its type fail.
func (o *fakeOS) Run(ctx context.Context, c launcher.Command, id, token string) (oneshot.Ran, error) {
	if _, _, hook := unit.HookOf(id); hook {
		return o.runHook(ctx, &fakeHook{id: id, token: token, command: c})
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.processes {
		if !strings.HasSuffix(id, "/probe") || token == p.rec.Token {
			o.t.Errorf("a check of %s has the id %s and the token of the worker", p.worker, id)
		}
	}
	o.checks++
	ran := oneshot.Ran{At: time.Now(), Exit: identity.Exit{Source: identity.ExitWait}}
	if err := o.answers[probe.TypeExec]; err != nil {
		ran.Exit.Code, ran.Output = 1, []byte(err.Error()+"\n")
	}
	return ran, ctx.Err()
}

// prober makes the probers of workers. Those that would need a network answer as the world does.
func (o *fakeOS) prober(s probe.Spec, t probe.Target) probe.Prober {
	p := probe.New(s, t)
	if s.Type == probe.TypeHTTP || s.Type == probe.TypeTCP || s.Type == probe.TypeGRPC {
		return fakeProber{p, o, s.Type}
	}
	return p
}

type fakeProber struct {
	probe.Prober
	os *fakeOS
	of probe.Type
}

func (p fakeProber) Ping(context.Context) error {
	p.os.mu.Lock()
	defer p.os.mu.Unlock()
	p.os.checks++
	return p.os.answers[p.of]
}

func (o *fakeOS) Attach(_ string, rec records.Instance) (launcher.Instance, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.attachErr != nil {
		return nil, o.attachErr
	}
	p := o.processes[rec.PID]
	if p == nil || p.isDead() && !p.unreaped || p.rec.Token != rec.Token {
		return nil, process.ErrGone
	}
	return p, nil
}

func (o *fakeOS) AttachFound(_ string, pid int, rec records.Instance) (launcher.Instance, identity.Process, error) {
	rec.PID = pid
	inst, err := o.Attach("", rec)
	if err != nil {
		return nil, identity.Process{}, err
	}
	return inst, inst.Identity(), nil
}

func (o *fakeOS) Identify(pid int) (identity.Process, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.processes[pid]; p != nil && !p.isDead() {
		return p.Identity(), nil
	}
	return identity.Process{}, process.ErrGone
}

func (o *fakeOS) Holds(string, records.Instance, int) bool { return false }

func (o *fakeOS) Left(_ context.Context, _ string, rec records.Instance, _ bool) (string, []process.Holder, error) {
	holders, _ := o.scan(context.Background())
	if o.leaseHeld {
		return launcher.LeaseHeld, nil, nil
	}
	return launcher.LeaseFree, slices.DeleteFunc(holders, func(h process.Holder) bool {
		return h.Token != rec.Token
	}), nil
}

func (o *fakeOS) Owner(_ string, rec records.Instance, port int) (process.Ownership, error) {
	p := o.at(port)
	switch {
	case p == nil:
		return process.PortFree, nil
	case p.rec.Token == rec.Token:
		return process.PortOurs, nil
	}
	return process.PortForeign, nil
}

func (o *fakeOS) Measure(_ context.Context, subjects []launcher.Subject) ([]process.Resources, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.readings++
	used := make([]process.Resources, len(subjects))
	for i, s := range subjects {
		p := o.processes[s.Instance.PID]
		if p == nil || p.isDead() {
			continue
		}
		p.mu.Lock()
		used[i] = process.Resources{
			Processes: 1, Threads: 1, Files: 3, Resident: p.resident,
			CPU: time.Duration(p.load * float64(time.Since(o.birth))),
		}
		p.mu.Unlock()
	}
	return used, nil
}

func (o *fakeOS) Look(_ context.Context, s launcher.Subject) (launcher.Look, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.processes[s.Instance.PID]
	if p == nil || p.isDead() {
		return launcher.Look{}, errors.New("there is no process")
	}
	return launcher.Look{PIDs: []int{p.pid}, Listens: []int{p.rec.Port}, Cgroup: "/workers/" + s.Worker}, nil
}

func (o *fakeOS) Sweep(_ context.Context, _ string, rec records.Instance) ([]process.Holder, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.processes {
		if p.rec.Token == rec.Token && !p.isDead() {
			if time.Now().Before(p.immortalUntil) {
				return []process.Holder{{PID: p.pid}}, nil
			}
			o.acts = append(o.acts, fmt.Sprintf("kill %d", p.pid))
			p.die(identity.Exit{Signal: 9, Source: identity.ExitUnknown})
		}
	}
	if o.leaseHeld {
		return nil, process.ErrLeaseHeld
	}
	return nil, nil
}

// plant creates a process that no master has started.
func (o *fakeOS) plant(p *fakeProcess) *fakeProcess {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p.pid == 0 {
		p.pid = 1000 + len(o.processes)
	}
	p.os, p.owner, p.done = o, process.PortOurs, make(chan struct{})
	o.processes[p.pid] = p
	return p
}

// did returns the acts on processes so far.
func (o *fakeOS) did() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.acts)
}

func (o *fakeOS) scan(context.Context) ([]process.Holder, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var holders []process.Holder
	for _, p := range o.processes {
		if !p.isDead() {
			h := process.Holder{
				PID: p.pid, PGID: p.pid, SID: p.pid, UID: uint32(os.Geteuid()), StartTicks: uint64(p.pid),
				WorkerID: p.worker, Token: p.rec.Token, Port: p.rec.Port,
			}
			if p.worker != "" {
				h.MasterID, h.StateDir = o.masterID, o.stateDir
			}
			if p.child {
				h.PGID, h.SID = 1, 1
			}
			holders = append(holders, h)
		}
	}
	return holders, o.scanErr
}

func (o *fakeOS) bootTime() time.Duration {
	return time.Hour + time.Since(o.birth) + time.Duration(o.suspended.Load())
}

// at returns the process on a port.
func (o *fakeOS) at(port int) *fakeProcess {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.processes {
		if p.rec.Port == port && !p.isDead() {
			return p
		}
	}
	return nil
}

// of returns the living process of a worker.
func (o *fakeOS) of(worker string) *fakeProcess {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.processes {
		if p.worker == worker && !p.isDead() {
			return p
		}
	}
	o.t.Fatalf("%s has no living process", worker)
	return nil
}

func (o *fakeOS) living() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, p := range o.processes {
		if !p.isDead() {
			n++
		}
	}
	return n
}

func (o *fakeOS) starts(worker string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.started[worker]
}

func (p *fakeProcess) die(e identity.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dead {
		p.dead, p.exit = true, e
		close(p.done)
	}
}

func (p *fakeProcess) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

func (p *fakeProcess) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *fakeProcess) Identity() identity.Process {
	return identity.Process{BootID: p.rec.BootID, PID: p.pid, Inode: uint64(p.pid), Proof: identity.ProofPidfdInode}
}

func (p *fakeProcess) Done() <-chan struct{} {
	if p.diesAtLook > 0 {
		if p.diesAtLook--; p.diesAtLook == 0 {
			p.die(identity.Exit{Signal: syscall.SIGKILL, Source: identity.ExitStat})
		}
	}
	return p.done
}
func (p *fakeProcess) Exit() identity.Exit       { return p.exit }
func (p *fakeProcess) Close() error              { return nil }
func (p *fakeProcess) Handle() (*os.File, error) { return nil, errors.ErrUnsupported }

func (p *fakeProcess) Suspended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.suspended
}

func (p *fakeProcess) Terminate(syscall.Signal) error {
	p.os.mu.Lock()
	p.os.acts = append(p.os.acts, "terminate "+p.worker)
	p.os.mu.Unlock()
	if !p.ignoresTerm {
		p.die(identity.Exit{Source: identity.ExitWait})
	}
	return nil
}

func (p *fakeProcess) Signal(sig syscall.Signal) error {
	p.os.mu.Lock()
	p.os.acts = append(p.os.acts, fmt.Sprintf("signal %d %s", int(sig), p.worker))
	p.os.mu.Unlock()
	return nil
}

func (p *fakeProcess) TerminateRest(context.Context) error { return nil }

func (p *fakeProcess) Survived() bool {
	return p.childrenUntil.After(time.Now())
}

func (p *fakeProcess) Outlived(context.Context) bool { return p.Survived() }

func (p *fakeProcess) Kill(context.Context) ([]process.Holder, error) {
	p.childrenKilled = p.Survived()
	p.die(identity.Exit{Signal: 9, Source: identity.ExitWait})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kills++
	if time.Now().Before(p.immortalUntil) {
		return []process.Holder{{PID: 1_000_000}}, nil
	}
	return nil, nil
}

func (p *fakeProcess) CPUTime(context.Context) (process.Usage, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.measured++
	used := time.Duration(p.load * float64(time.Since(p.os.birth)))
	return process.Usage{CPU: used, Blocked: p.blocked}, p.usageErr
}

func (p *fakeProcess) Limit(l cgroup.Limits) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limits = append(p.limits, l)
	return l.Unenforced(p.unlimited)
}

func (p *fakeProcess) OutOfMemory() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.oom
}

func (p *fakeProcess) OutputLost(string) bool { return false }

func (p *fakeProcess) Fallback(string) error { return nil }

func (p *fakeProcess) AppendsOnly(context.Context, string) (bool, error) { return true, nil }

func (p *fakeProcess) OwnsPort(int) (process.Ownership, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.owner, nil
}

func (p *fakeProcess) OwnsPeer(context.Context, netip.AddrPort, netip.AddrPort) (process.Ownership, error) {
	return p.OwnsPort(0)
}

func (p *fakeProcess) ListensOn(context.Context) ([]int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listens != nil {
		return p.listens, nil
	}
	return slices.DeleteFunc([]int{p.rec.Port}, func(port int) bool { return port == 0 }), nil
}

// Includes takes the test for a descendant: it sends notifications in place of the process.
func (p *fakeProcess) Includes(pid int) bool { return pid == p.pid || pid == os.Getpid() }

// fakeLink answers for the process on its port.
type fakeLink struct {
	os   *fakeOS
	port int
}

func (l fakeLink) Ping(ctx context.Context) error {
	p := l.os.at(l.port)
	if p == nil {
		return errors.New("connection refused")
	}
	p.mu.Lock()
	silent, err := p.mute || p.suspended, p.pingErr
	p.mu.Unlock()
	if silent {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}
func (fakeLink) Method() probe.Method             { return probe.Ping }
func (l fakeLink) GRPC() grpc.ClientConnInterface { return fakeConn{fakeLink: l} }
func (fakeLink) Shutdown()                        {}

// fakeEndpoint is a registered endpoint.
type fakeEndpoint struct {
	mu     sync.Mutex
	err    error         // the answer to a Ping
	takes  time.Duration // the answer
	offers []string      // listed by its reflection; nil: it has none
	pings  int
	closed int
}

func (x *fakeEndpoint) Ping(context.Context) error {
	x.mu.Lock()
	takes := x.takes
	x.mu.Unlock()
	time.Sleep(takes)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pings++
	return x.err
}

func (*fakeEndpoint) Method() probe.Method { return probe.Ping }

func (x *fakeEndpoint) say(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.err = err
}

func (x *fakeEndpoint) delay(takes time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.takes = takes
}

func (x *fakeEndpoint) List(context.Context) ([]string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.offers == nil {
		return nil, status.Error(codes.Unimplemented, "unknown service")
	}
	return x.offers, nil
}

// offer sets the list of its reflection; without names, it has no reflection.
func (x *fakeEndpoint) offer(names ...string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.offers = names
}

func (*fakeEndpoint) GRPC() grpc.ClientConnInterface { return nil }

func (x *fakeEndpoint) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed++
	return nil
}

// endpoint returns the endpoint at that address, which answers until told otherwise.
func (o *fakeOS) endpoint(address string) *fakeEndpoint {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.endpoints == nil {
		o.endpoints = map[string]*fakeEndpoint{}
	}
	if o.endpoints[address] == nil {
		o.endpoints[address] = &fakeEndpoint{}
	}
	return o.endpoints[address]
}

func (o *fakeOS) dialRegistered(address string) (registrations.Prober, error) {
	return o.endpoint(address), nil
}

// fakeConn implements only reflection and GetStatus.
type fakeConn struct {
	grpc.ClientConnInterface
	fakeLink
}

func (c fakeConn) NewStream(
	ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption,
) (grpc.ClientStream, error) {
	p := c.os.at(c.port)
	if p == nil {
		return nil, status.Error(codes.Unavailable, "connection refused")
	}
	return &fakeStream{ctx: ctx, p: p, method: method}, nil
}

// Invoke implements GetStatus of the DefaultService; the supervisor calls no other method of a worker.
func (c fakeConn) Invoke(_ context.Context, method string, _, _ any, _ ...grpc.CallOption) error {
	if method != "/"+unit.DefaultService+"/GetStatus" {
		c.os.t.Errorf("a worker was sent a call of %s", method)
	}
	p := c.os.at(c.port)
	if p == nil {
		return status.Error(codes.Unavailable, "connection refused")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.statuses++
	return p.statusErr
}

type fakeStream struct {
	grpc.ClientStream
	ctx    context.Context
	p      *fakeProcess
	method string
}

func (*fakeStream) SendMsg(any) error { return nil }

func (s *fakeStream) RecvMsg(m any) error {
	s.p.mu.Lock()
	s.p.asked++
	offers, err, after := s.p.offers, s.p.offerErr, s.p.offerAfter
	s.p.mu.Unlock()
	select {
	case <-time.After(after):
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
	switch {
	case err != nil:
		return err
	case offers == nil || s.method != services.ReflectionV1Alpha:
		return status.Error(codes.Unimplemented, "unknown service")
	}
	list := &reflection.ListServiceResponse{}
	for _, name := range offers {
		list.Service = append(list.Service, &reflection.ServiceResponse{Name: name})
	}
	answer := &reflection.ServerReflectionResponse_ListServicesResponse{ListServicesResponse: list}
	m.(*reflection.ServerReflectionResponse).MessageResponse = answer
	return nil
}

// master is a supervisor over a store and a fake world, like one run of the program.
type master struct {
	*Supervisor
	t     *testing.T
	store *store.DB
	end   context.CancelCauseFunc
	ended chan error
}

// startMaster opens the state in dir and serves count replicas.
func startMaster(t *testing.T, world *fakeOS, dir string, count int, change ...func(*unit.Spec)) *master {
	t.Helper()
	db := openStore(t, world, dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := unit.Spec{Name: "worker", Path: self, Replicas: count}
	for _, c := range change {
		c(&unit)
	}
	return startUnits(t, world, db, unit)
}

// openStore opens the state in dir for the next master.
func openStore(t *testing.T, world *fakeOS, dir string) *store.DB {
	t.Helper()
	db, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	world.store = db
	return db
}

// startUnits serves the units.
func startUnits(t *testing.T, world *fakeOS, db *store.DB, units ...unit.Spec) *master {
	t.Helper()
	var log slog.Handler = slog.NewTextHandler(t.Output(), nil)
	if world.log != nil {
		log = slog.NewMultiHandler(log, world.log)
	}
	s, err := New(Options{
		Store: db, Rand: rand.New(rand.NewPCG(1, 2)), Log: slog.New(log), dialRegistered: world.dialRegistered,
	}, units...)
	if err != nil {
		t.Fatal(err)
	}
	s.env.Launcher, s.scan = world, world.scan
	s.env.Dial = func(port int) (worker.Link, error) {
		world.set(func() { world.dials++ })
		return fakeLink{world, port}, nil
	}
	s.env.Prober = world.prober
	s.env.Notify.Listen = world.listen
	s.env.AwaitListener = func(ctx context.Context, port int, refused func(error)) error {
		for {
			if p := world.at(port); p != nil && p.readyAfter >= 0 && time.Since(world.birth) >= p.readyAfter {
				return nil
			}
			refused(syscall.ECONNREFUSED)
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	s.rotate = s.env.Rotator.Serve // in a bubble, waiting for the kernel would stop the time
	if world.unrotated {
		s.rotate = func(ctx context.Context) { <-ctx.Done() }
	}
	s.env.BootTime = world.bootTime
	s.env.Clock = schedule.NewClock(world.wall)
	if world.bootID != "" {
		s.env.BootID = world.bootID
	}
	ctx, end := context.WithCancelCause(t.Context())
	m := &master{Supervisor: s, t: t, store: db, end: end, ended: make(chan error, 1)}
	go func() { m.ended <- s.Serve(ctx) }()
	return m
}

// crash ends the master and leaves everything as it is, like kill -9.
func (m *master) crash() {
	m.t.Helper()
	m.stop(ErrDetach)
}

// stop ends the master with the given cause and waits until it has ended.
func (m *master) stop(reason error) {
	m.t.Helper()
	m.end(reason)
	if err := <-m.ended; err != nil {
		m.t.Errorf("supervisor ended with %v", err)
	}
	if err := m.store.Close(); err != nil {
		m.t.Errorf("store closed with %v", err)
	}
}

func (m *master) worker(id string) worker.Info {
	m.t.Helper()
	for _, w := range m.Workers() {
		if w.ID == id {
			return w
		}
	}
	m.t.Fatalf("no worker %s", id)
	return worker.Info{}
}

// await waits until the worker has the status.
func (m *master) await(id string, status records.Status, most time.Duration) worker.Info {
	m.t.Helper()
	for end := time.Now().Add(most); ; {
		settle(100 * time.Millisecond)
		w := m.worker(id)
		if w.Status == status {
			return w
		}
		if time.Now().After(end) {
			m.t.Fatalf("%s is %s after %s, want it %s", id, w.Status, most, status)
		}
	}
}

// givesUp has no failed worker tried again.
func givesUp(u *unit.Spec) { u.Restart.RetryFailed = -1 }

// settle waits until everything that happens within d has happened.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
