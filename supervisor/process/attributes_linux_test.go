package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
)

// rightsOf resolves attributes.
func rightsOf(t testing.TB, a Attributes) Rights {
	t.Helper()
	r, err := a.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// startWith starts a worker with attributes and returns it when it runs.
func startWith(t testing.TB, a Attributes, behaviour string, args ...string) *worker {
	t.Helper()
	w := prepareWorker(t).start(t, Spec{Args: childArgs(behaviour, args...), Rights: rightsOf(t, a)})
	if pid := w.expectPID(t, "ready"); pid != w.PID() {
		t.Errorf("the process says that it is %d, Start that it is %d", pid, w.PID())
	}
	return w
}

// status returns fields of a /proc/.../status.
func status(t testing.TB, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

// wantStatus checks fields of the status of a process.
func (w *worker) wantStatus(t *testing.T, want map[string]string) {
	t.Helper()
	got := status(t, procfs.Path(w.PID(), "status"))
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s is %q, want %q", key, got[key], value)
		}
	}
}

// limitsOf returns the soft and the hard limits of a process, by the first words of their lines in /proc/PID/limits.
func limitsOf(t testing.TB, pid int) map[string]string {
	t.Helper()
	text, err := os.ReadFile(procfs.Path(pid, "limits"))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		const nameWidth = 26
		if len(line) > nameWidth {
			values := strings.Fields(line[nameWidth:])
			found[strings.TrimSpace(line[:nameWidth])] = values[0] + " " + values[1]
		}
	}
	return found
}

// nice returns the nice values of all threads of a process.
func nice(t testing.TB, pid int) (values []int) {
	t.Helper()
	threads, err := filepath.Glob(procfs.Path(pid, "task/*/stat"))
	if err != nil || len(threads) == 0 {
		t.Fatalf("%v, %v", threads, err)
	}
	for _, path := range threads {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		fields := strings.Fields(string(line[strings.LastIndexByte(string(line), ')'):]))
		values = append(values, number(fields[17])) // field 19 of proc_pid_stat(5)
	}
	return values
}

const someCapabilities = 1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_CHOWN

func mask(bits uint64) string { return fmt.Sprintf("%016x", bits) }

func TestAttributesOfAProcess(t *testing.T) {
	needRoot(t)
	account := rightsOf(t, Attributes{User: "nobody"}).Account
	own := status(t, "/proc/self/status")
	two := []string{"NET_BIND_SERVICE", "CHOWN"}
	user := fmt.Sprintf("%[1]d %[1]d %[1]d %[1]d", account.UID)
	group := fmt.Sprintf("%[1]d %[1]d %[1]d %[1]d", account.GID)
	for name, tt := range map[string]struct {
		attributes Attributes
		status     map[string]string
		limits     map[string]string
		nice       int
	}{
		"none": {status: map[string]string{
			"Uid": own["Uid"], "Groups": own["Groups"], "CapBnd": own["CapBnd"], "NoNewPrivs": "0",
		}},
		"user": {
			attributes: Attributes{User: "nobody"},
			status: map[string]string{
				"Uid": user, "Gid": group, "Groups": strconv.Itoa(int(account.GID)),
				"CapEff": mask(0), "CapPrm": mask(0), "CapAmb": mask(0),
			},
		},
		"user and group": {
			attributes: Attributes{User: "65534", Group: "7"},
			status:     map[string]string{"Uid": user, "Gid": "7 7 7 7", "Groups": "7"},
		},
		"number without an entry": {
			attributes: Attributes{User: "54321", Group: "7"},
			status:     map[string]string{"Uid": "54321 54321 54321 54321", "Gid": "7 7 7 7", "Groups": ""},
		},
		"group": {
			attributes: Attributes{Group: "7"},
			status:     map[string]string{"Uid": "0 0 0 0", "Gid": "7 7 7 7"},
		},
		"umask": {
			attributes: Attributes{Umask: new(uint32(0o137))},
			status:     map[string]string{"Umask": "0137", "Uid": own["Uid"], "Groups": own["Groups"]},
		},
		"umask 0": {
			attributes: Attributes{Umask: new(uint32(0))},
			status:     map[string]string{"Umask": "0000"},
		},
		"nice":          {attributes: Attributes{Nice: 7}, nice: 7},
		"negative nice": {attributes: Attributes{Nice: -3, User: "nobody"}, nice: -3},
		"limits": {
			attributes: Attributes{OpenFiles: new(uint64(77)), Core: new(uint64(0))},
			limits:     map[string]string{"Max open files": "77 77", "Max core file size": "0 0"},
		},
		"limits of a user": {
			attributes: Attributes{OpenFiles: new(uint64(33)), User: "nobody", Umask: new(uint32(0o27))},
			limits:     map[string]string{"Max open files": "33 33"},
			status:     map[string]string{"Uid": user, "Gid": group, "Umask": "0027", "CapPrm": mask(0)},
		},
		"core": {
			attributes: Attributes{Core: new(uint64(4096))},
			limits: map[string]string{
				"Max core file size": "4096 4096", "Max open files": originalLimit(t), // as without a helper
			},
		},
		"no new privileges": {
			attributes: Attributes{NoNewPrivileges: true},
			status:     map[string]string{"NoNewPrivs": "1", "CapBnd": own["CapBnd"]},
		},
		"capabilities of root": {
			attributes: Attributes{Capabilities: two},
			status: map[string]string{
				"CapBnd": mask(someCapabilities), "CapEff": mask(someCapabilities), "CapPrm": mask(someCapabilities),
			},
		},
		"capabilities of a user": {
			attributes: Attributes{Capabilities: two, User: "nobody"},
			status: map[string]string{
				"Uid": user, "CapBnd": mask(someCapabilities), "CapEff": mask(someCapabilities),
				"CapPrm": mask(someCapabilities), "CapAmb": mask(someCapabilities),
			},
		},
		"no capabilities": {
			attributes: Attributes{Capabilities: []string{}},
			status:     map[string]string{"CapBnd": mask(0), "CapEff": mask(0), "CapPrm": mask(0), "CapInh": mask(0)},
		},
		"all": {
			attributes: Attributes{
				User: "nobody", Group: "7", Umask: new(uint32(0o77)), Nice: 3, OpenFiles: new(uint64(55)),
				Core: new(uint64(1)), Capabilities: two, NoNewPrivileges: true,
			},
			status: map[string]string{
				"Uid": user, "Gid": "7 7 7 7", "Umask": "0077", "CapEff": mask(someCapabilities),
				"CapBnd": mask(someCapabilities), "NoNewPrivs": "1",
			},
			limits: map[string]string{"Max open files": "55 55", "Max core file size": "1 1"},
			nice:   3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := startWith(t, tt.attributes, "sleep")
			w.wantStatus(t, tt.status)
			limits := limitsOf(t, w.PID())
			if tt.limits["Max open files"] == "" {
				tt.limits = map[string]string{"Max open files": originalLimit(t)}
			}
			for key, want := range tt.limits {
				if limits[key] != want {
					t.Errorf("%s is %q, want %q", key, limits[key], want)
				}
			}
			if tt.nice == 0 {
				tt.nice = nice(t, os.Getpid())[0]
			}
			for _, got := range nice(t, w.PID()) {
				if got != tt.nice {
					t.Errorf("a thread has nice %d, want %d", got, tt.nice)
				}
			}
		})
	}
}

// originalLimit returns the limit of open files that this process was started with: Go has raised its own.
func originalLimit(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").Output() // os/exec restores the original
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// A thread that was restricted for a start must end: if another one, or the main thread, kept its state, the master
// would lose its own rights, and every further worker too.
func TestStartsLeaveTheRightsOfThisProcess(t *testing.T) {
	needRoot(t)
	before := threadStates(t)
	if len(before) != 2 { // one state and one nice value
		t.Fatalf("the threads differ before: %v", before)
	}
	a := Attributes{
		User: "nobody", Nice: 5, NoNewPrivileges: true, Capabilities: []string{}, Umask: new(uint32(0o777)),
	}
	rights := rightsOf(t, a)
	const starts = 100
	for i := range starts {
		if i == starts/2 {
			rights.Umask = nil // without a helper
		}
		p, err := Start(Spec{Path: "/bin/true", Rights: rights})
		if err != nil {
			t.Fatal(err)
		}
		waitDone(t, p)
		p.Close()
	}
	// A thread that ends may still be listed for a moment.
	awaitTrue(t, fmt.Sprintf("the states of the threads are %q", before), func() bool {
		return slices.Equal(threadStates(t), before)
	})
}

// threadStates returns what differs between the threads of this process: their capabilities, no_new_privs, nice.
func threadStates(t *testing.T) []string {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		state := ""
		for line := range strings.Lines(string(text)) {
			switch key, _, _ := strings.Cut(line, ":"); key {
			case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Umask":
				state += line
			}
		}
		states = append(states, state)
	}
	for _, n := range nice(t, os.Getpid()) {
		states = append(states, fmt.Sprint("nice ", n))
	}
	slices.Sort(states)
	return slices.Compact(states)
}

// onOwnThread must not use the main thread, even if it is the one that is free.
func TestOwnThreadIsNotTheMainThread(t *testing.T) {
	seen := make(map[int]bool)
	for range 1000 {
		onOwnThread(func() { seen[unix.Gettid()] = true })
	}
	if seen[unix.Getpid()] {
		t.Error("f ran on the main thread")
	}
	if len(seen) < 100 { // a thread may get the number of one that has ended
		t.Errorf("f ran on %d threads: they do not end", len(seen))
	}
}

func TestUnknownAccounts(t *testing.T) {
	for _, tt := range []struct {
		attributes Attributes
		want       string
	}{
		{Attributes{User: "no-such-user"}, `there is no user "no-such-user" on this host`},
		{Attributes{User: "54321"}, "user 54321 has no entry on this host, so its group is not known"},
		{Attributes{User: "nobody", Group: "no-such-group"}, `there is no group "no-such-group" on this host`},
		{Attributes{User: "4294967295", Group: "7"}, `"4294967295"`}, // means "do not change" to the kernel
	} {
		if r, err := tt.attributes.Resolve(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %+v, %v, want %q", tt.attributes, r.Account, err, tt.want)
		}
	}
}

// The errors of a start by a helper must be those of a start without one.
func TestHelperReportsFailures(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	long := []string{strings.Repeat("x", 1<<16)}
	inner := write("inner", "#!/no/such/interpreter\n", 0o755)
	limited := Rights{Attributes: Attributes{Umask: new(uint32(0o22)), OpenFiles: new(uint64(50))}}
	for name, tt := range map[string]struct {
		spec Spec
		is   error
	}{
		"missing":          {Spec{Path: filepath.Join(dir, "none")}, fs.ErrNotExist},
		"folder":           {Spec{Path: dir}, unix.EISDIR},
		"not executable":   {Spec{Path: write("data", "x", 0o644)}, fs.ErrPermission},
		"no program":       {Spec{Path: write("text", "hello", 0o755)}, unix.ENOEXEC},
		"no interpreter":   {Spec{Path: inner}, fs.ErrNotExist},
		"no folder":        {Spec{Path: inner, Dir: filepath.Join(dir, "away")}, fs.ErrNotExist},
		"NUL":              {Spec{Path: "/bin/true", Args: []string{"a\x00b"}}, unix.EINVAL},
		"too long":         {Spec{Path: "/bin/true", Args: []string{strings.Repeat("x", 1<<18)}}, unix.E2BIG},
		"too many in all":  {Spec{Path: "/bin/true", Args: slices.Repeat(long, 100)}, unix.E2BIG},
		"relative to none": {Spec{Path: "./none", Dir: dir}, fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			p, plain := Start(tt.spec)
			if plain == nil {
				waitDone(t, p)
				t.Fatal("Start succeeded")
			}
			tt.spec.Rights = limited
			p, err := Start(tt.spec)
			if err == nil {
				waitDone(t, p)
				t.Fatal("Start by a helper succeeded")
			}
			if err.Error() != plain.Error() || !errors.Is(err, tt.is) {
				t.Errorf("%v, want %v, which is %v", err, plain, tt.is)
			}
		})
	}
}

func TestLimitAboveThatOfTheMaster(t *testing.T) {
	w := startWorker(t, "nobody-limit")
	for _, want := range []string{"limits.open_files: 2000000000 is above what the master may set", "fs.nr_open ("} {
		if line := w.expect(t, "start"); !strings.Contains(line, want) {
			t.Errorf("%q, want %q", line, want)
		} else {
			w.stash = append(w.stash, "start "+line)
		}
	}
}

// The rights of another user than root that masters need for the attributes.
func TestAttributesOfAMasterThatIsNotRoot(t *testing.T) {
	needRoot(t)
	for name, tt := range map[string]struct {
		attributes Attributes
		want       string // of the error
	}{
		"umask":                   {Attributes{Umask: new(uint32(0o27))}, ""},
		"lower limit":             {Attributes{OpenFiles: new(uint64(40))}, ""},
		"nice":                    {Attributes{Nice: 19}, ""},
		"no new privileges":       {Attributes{NoNewPrivileges: true}, ""},
		"itself":                  {Attributes{User: "nobody"}, ""},
		"none, and no new":        {Attributes{NoNewPrivileges: true, Capabilities: []string{}}, ""},
		"none":                    {Attributes{Capabilities: []string{}}, "needs CAP_SETPCAP"},
		"one that it has not":     {Attributes{Capabilities: []string{"CHOWN"}}, "does not have CAP_CHOWN"},
		"negative nice":           {Attributes{Nice: -5}, "needs CAP_SYS_NICE"},
		"another user":            {Attributes{User: "root"}, "needs CAP_SETUID and CAP_SETGID"},
		"another user, by helper": {Attributes{User: "root", Umask: new(uint32(0))}, "needs CAP_SETUID and CAP_SETGID"},
	} {
		t.Run(name, func(t *testing.T) {
			w := startWorker(t, "nobody-start", encode(t, tt.attributes))
			line := w.expect(t, "start")
			if tt.want == "" && line != "nil" || !strings.Contains(line, tt.want) {
				t.Errorf("Start: %s, want %q", line, tt.want)
			}
		})
	}
}

// nobodyStart starts a process with attributes as a master that is not root would.
func nobodyStart(args []string) {
	dropUID()
	var a Attributes
	must(json.Unmarshal([]byte(args[0]), &a))
	r, err := a.Resolve()
	must(err)
	p, err := Start(Spec{Path: program, Args: childArgs("sleep"), Rights: r})
	if err == nil {
		must(p.Signal(syscall.SIGKILL))
		<-p.Done()
		fmt.Println("start nil")
		return
	}
	fmt.Println("start", err)
}

// nobodyLimit starts a process with a limit that nobody may set.
func nobodyLimit([]string) { nobodyStart([]string{`{"OpenFiles": 2000000000}`}) }

// cutOffStart is a master that is killed while a helper waits for it.
func cutOffStart(args []string) {
	h, err := newHelper(Rights{Attributes: Attributes{Umask: new(uint32(0))}})
	must(err)
	path, argv, err := h.command(Spec{Path: "/bin/touch", Args: args})
	must(err)
	pid, _, err := syscall.StartProcess(path, argv, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2, ^uintptr(0), h.end.Fd()},
	})
	must(err)
	must(h.released())
	_, err = h.conn.Read(make([]byte, 1))
	must(err)
	fmt.Println("helper", pid)
	sleepOn()
}

// A helper whose master is killed before it says go ends by itself and never runs the program.
func TestHelperEndsWithItsMaster(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ran")
	w := startWorker(t, "cut-off-start", file)
	helper := watchPID(t, w.expectPID(t, "helper"))
	if !helper.InStartHelper() {
		t.Fatal("it is not recognised as a helper")
	}
	if err := w.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, helper)
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the program has run: %v", err)
	}
}

// The threads of a helper end one by one. As long as one shows the environment, the process must not pass for a worker.
func TestEndingHelperIsRecognised(t *testing.T) {
	for behaviour, want := range map[string]bool{"ending-helper": true, "dead-leader": false} {
		w := startWorker(t, behaviour)
		w.expect(t, "ready")
		if err := w.Verify(w.family.Token); err != nil {
			t.Fatalf("%s: its token is not seen: %v", behaviour, err)
		}
		if got := w.InStartHelper(); got != want {
			t.Errorf("%s: InStartHelper() = %v, want %v", behaviour, got, want)
		}
	}
}

// A program that does not call RunStartHelper must not be started a second time instead.
func TestProgramWithoutAStartHelper(t *testing.T) {
	mayHelp.Store(false)
	defer mayHelp.Store(true)
	p, err := Start(Spec{Path: "/bin/true", Rights: Rights{Attributes: Attributes{Umask: new(uint32(0))}}})
	if err == nil {
		waitDone(t, p)
	}
	if !errors.Is(err, errNoStartHelper) {
		t.Errorf("%v, want %v", err, errNoStartHelper)
	}
}

func encode(t *testing.T, a Attributes) string {
	t.Helper()
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
