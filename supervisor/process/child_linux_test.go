package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// The test binary runs itself again as the processes under test: "child <behaviour> [arguments]".
const childArg = "child"

// childLife bounds the life of every child, in case a test run is killed.
const childLife = 2 * time.Minute

func isChild() bool { return len(os.Args) > 2 && os.Args[1] == childArg }

func init() {
	if isChild() && (os.Args[2] == "dead-leader" || os.Args[2] == "ending-helper") {
		runtime.LockOSThread() // keeps the first thread for the main goroutine
	}
}

func childArgs(behaviour string, args ...string) []string {
	return append([]string{childArg, behaviour}, args...)
}

var behaviours map[string]func(args []string)

func init() {
	behaviours = map[string]func(args []string){
		"sleep":         func([]string) { ready(); sleepOn() },
		"pause":         keepPauseProcess,
		"ignore-term":   func([]string) { signal.Ignore(syscall.SIGTERM); ready(); sleepOn() },
		"exit":          func(args []string) { ready(); os.Exit(number(args[0])) },
		"exit-on-usr1":  exitOnUSR1,
		"raise":         raise,
		"count-usr1":    countUSR1,
		"count-term":    countTERM,
		"re-exec":       func([]string) { execSelf(os.Environ(), "sleep") },
		"clear":         func(args []string) { execSelf(nil, args...) },
		"close-lease":   closeLease,
		"overwrite":     overwrite,
		"dead-leader":   deadLeader,
		"ending-helper": endingHelper,
		"drop-uid":      func([]string) { dropUID(); ready(); sleepOn() },
		"spawn":         func(args []string) { spawn(false, args); ready(); sleepOn() },
		"spawn-drop":    func(args []string) { spawn(false, args); dropUID(); ready(); sleepOn() },
		"leave":         func(args []string) { spawn(true, args); os.Exit(0) },
		"double-fork":   func(args []string) { run("leave", args); ready(); sleepOn() },
		"listen":        listen,
		"accept":        accept,
		"connect":       connect,
		"prefork":       prefork,
		"serve-fd":      serveFD,
		"descriptors":   listDescriptors,
		"chain":         chain,
		"middle":        middle,
		"lease-master":  leaseMaster,
		"adopter":       adopter,
		"nobody-exit":   nobodyExit,
		"nobody-port":   func(args []string) { portOwner(args, dropUID) },
		"port-owner":    func(args []string) { portOwner(args, func() {}) },
		"bare-port":     func(args []string) { withoutCapabilities("port-owner", args) },
		"nobody-kill":   nobodyKill,
		"nobody-hidden": func(args []string) {
			dropUID()
			ctx, cancel := testDeadline()
			defer cancel()
			hidden, err := PortHidden(ctx, number(args[0]))
			must(err)
			fmt.Printf("hidden %v\n", hidden)
		},
		"nobody-files": func(args []string) {
			kernel.Withheld.FolderSize.Store(true)
			dropUID()
			other := Family{Session: number(args[0]), StartTicks: startTicksOf(args[0])}
			used, err := Measure(context.Background(), []Family{other})
			must(err)
			fmt.Printf("files %d of %d\n", used[0].Files, used[0].Processes)
		},
		"nobody-start":    nobodyStart,
		"nobody-limit":    nobodyLimit,
		"nobody-discover": nobodyDiscover,
		"cut-off-start":   cutOffStart,
		"kill-own":        killOwn,
		"open":            openFile,
		"reaper":          reaper,
		"inherits":        func([]string) { fmt.Printf("inherits %t\n", InheritsOrphans()) },
		"namespace": func([]string) {
			say("proc", func() (string, bool) { e := procfs.Check(); return fmt.Sprint(e), e == nil })
		},
		"cgroup": func([]string) {
			say("cgroup", func() (string, bool) { dir, err := cgroup.Delegated(); return dir, err == nil })
			sleepOn()
		},
		"spin":        func([]string) { ready(); burn(childLife) },
		"burn":        func(args []string) { burn(length(args[0])); fmt.Println("burnt") },
		"reap-burner": func(args []string) { run("burn", args); ready(); sleepOn() },
	}
}

func childMain() {
	time.AfterFunc(childLife, func() { os.Exit(99) })
	behaviours[os.Args[2]](os.Args[3:])
}

func ready() { fmt.Printf("ready %d\n", os.Getpid()) }

func sleepOn() {
	for {
		time.Sleep(childLife) // longer than any test
	}
}

func say(what string, f func() (string, bool)) {
	text, ok := f()
	fmt.Printf("%s %v %s\n", what, ok, text)
}

// openFile keeps a file open: its path and the flags.
func openFile(args []string) {
	f, err := os.OpenFile(args[0], number(args[1]), 0)
	must(err)
	defer func() { must(f.Close()) }()
	ready()
	sleepOn()
}

func startTicksOf(pid string) uint64 {
	s, err := procfs.ReadStat(number(pid))
	must(err)
	return s.StartTicks
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	must(err)
	return n
}

func length(text string) time.Duration {
	d, err := time.ParseDuration(text)
	must(err)
	return d
}

// burn uses that much processor time.
func burn(d time.Duration) {
	for {
		var u unix.Rusage
		must(unix.Getrusage(unix.RUSAGE_SELF, &u))
		if time.Duration(u.Utime.Nano()+u.Stime.Nano()) >= d {
			return
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Println("failed", err)
		os.Exit(98)
	}
}

// usr1 returns a channel that receives every SIGUSR1 from now on. Tests use this signal to make a child continue.
func usr1() <-chan os.Signal {
	got := make(chan os.Signal, 8)
	signal.Notify(got, syscall.SIGUSR1)
	return got
}

func exitOnUSR1(args []string) {
	got := usr1()
	ready()
	<-got
	os.Exit(number(args[0]))
}

func raise(args []string) {
	ready()
	// Go's runtime would turn some signals into an exit code.
	signal.Reset()
	must(unix.Kill(os.Getpid(), syscall.Signal(number(args[0]))))
	sleepOn()
}

// countUSR1 prints every SIGUSR1 that it receives.
func countUSR1([]string) {
	got := usr1()
	ready()
	for range got {
		fmt.Printf("usr1 %d\n", os.Getpid())
	}
}

// countTERM prints every SIGTERM that it receives, and continues.
func countTERM([]string) {
	got := make(chan os.Signal, 8)
	signal.Notify(got, syscall.SIGTERM)
	ready()
	for range got {
		fmt.Printf("term %d\n", os.Getpid())
	}
}

// execSelf replaces the program: same PID and start time, different environment.
func execSelf(env []string, args ...string) {
	must(syscall.Exec(program, append([]string{program, childArg}, args...), env))
}

func closeLease(args []string) {
	must(unix.Close(3))
	if len(args) > 0 {
		execSelf(os.Environ(), args...)
	}
	ready()
	sleepOn()
}

// overwrite destroys the environment in memory, as programs that change their title do.
func overwrite([]string) {
	start, end := ownStat(50), ownStat(51)
	writeMemory(start, strings.Repeat("title ", int(end-start)/6))
	ready()
	sleepOn()
}

// ownStat returns a field of /proc/self/stat, numbered as in proc(5).
func ownStat(field int) int64 {
	line, err := os.ReadFile("/proc/self/stat")
	must(err)
	fields := strings.Fields(string(line[strings.LastIndexByte(string(line), ')')+1:]))
	value, err := strconv.ParseInt(fields[field-3], 10, 64)
	must(err)
	return value
}

func writeMemory(at int64, text string) {
	memory, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	must(err)
	defer memory.Close()
	_, err = memory.WriteAt([]byte(text), at)
	must(err)
}

// endingHelper has the arguments of a start helper, and its first thread ends before the others.
func endingHelper([]string) {
	writeMemory(ownStat(48), helperName+"\x00")
	deadLeader(nil)
}

// deadLeader ends its first thread and lives on in the others.
func deadLeader([]string) {
	got := usr1()
	go func() {
		for { // until the first thread shows that it is dead
			s, err := procfs.ReadStat(os.Getpid())
			must(err)
			if s.Ended() {
				break
			}
			runtime.Gosched()
		}
		ready()
		<-got
		os.Exit(3)
	}()
	// Not RawSyscall: the scheduler must hand the thread's processor to another thread.
	_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 7, 0, 0)
}

// nobody is a user without privileges.
const nobody = 65534

func dropUID() {
	must(syscall.Setgroups(nil))
	must(syscall.Setgid(nobody))
	must(syscall.Setuid(nobody))
}

// withoutCapabilities continues as another behaviour of root without capabilities.
func withoutCapabilities(behaviour string, args []string) {
	const noRoot = 1 << 0 // SECBIT_NOROOT: execve gives root no capabilities
	runtime.LockOSThread()
	must(unix.Prctl(unix.PR_SET_SECUREBITS, noRoot, 0, 0, 0))
	must(syscall.Exec(program, append([]string{program}, childArgs(behaviour, args...)...), os.Environ()))
}

func spawn(ownSession bool, args []string) {
	cmd := exec.Command(program, append([]string{childArg}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: ownSession}
	must(cmd.Start())
}

func run(behaviour string, args []string) {
	cmd := exec.Command(program, childArgs(behaviour, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	must(cmd.Run())
}

func listen(args []string) {
	l, err := net.Listen("tcp", args[0])
	must(err)
	fmt.Printf("port %d\n", l.Addr().(*net.TCPAddr).Port)
	sleepOn()
}

// accept listens in a way that lets other processes listen on the port too, and keeps the accepted connections.
func accept(args []string) {
	l, err := sharedListener(args[0])
	must(err)
	fmt.Printf("port %d\n", l.Addr().(*net.TCPAddr).Port)
	for {
		c, err := l.Accept()
		must(err)
		kept = append(kept, c)
	}
}

// kept holds connections open.
var kept []net.Conn

// sharedListener listens with SO_REUSEPORT.
func sharedListener(address string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}), err)
	}}
	return config.Listen(context.Background(), "tcp", address)
}

// prefork opens the port and hands it to a child, as prefork servers do.
func prefork(args []string) {
	l, err := net.Listen("tcp", args[0])
	must(err)
	file, err := l.(*net.TCPListener).File()
	must(err)
	cmd := exec.Command(program, childArgs("serve-fd", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{file}
	must(cmd.Start())
	must(l.Close())
	must(file.Close())
	sleepOn()
}

func serveFD(args []string) {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	must(err)
	defer l.Close()
	// Only from now on does no other process have the port.
	fmt.Printf("port %s\n", args[0])
	sleepOn()
}

func listDescriptors([]string) {
	entries, err := os.ReadDir("/proc/self/fd")
	must(err)
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			fmt.Printf("fd %s %s\n", e.Name(), target)
		}
	}
	ready()
	sleepOn()
}

// chain forks and exits, and so does its child, and so on.
//
//go:norace
func chain([]string) {
	ready()
	text := []byte("the chain came to its end\n")
	runtime.LockOSThread()
	// After a bare fork only this thread exists: no call of the runtime from here on.
	for range 5000 {
		pid, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if pid != 0 {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	syscall.RawSyscall(syscall.SYS_WRITE, 1, uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)))
	syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
}

// middle starts a worker and dies, like a master.
func middle(args []string) {
	p, err := Start(Spec{
		Path: program, Args: childArgs(args[1], args[2:]...), Output: os.Stdout,
		Env: []string{EnvWorkerToken + "=" + args[0], EnvMasterID + "=" + testMaster()},
	})
	must(err)
	text, err := json.Marshal(p.Identity())
	must(err)
	fmt.Printf("identity %s\n", text)
	os.Exit(0)
}

// leaseMaster starts a worker that holds a lease, and dies.
func leaseMaster(args []string) {
	lease, err := CreateLease(args[0])
	must(err)
	_, err = Start(Spec{Path: program, Args: childArgs("sleep"), Output: os.Stdout, Lease: lease})
	must(err)
	os.Exit(0)
}

// adopter becomes the parent of the processes that middle leaves behind. It reaps them or not.
func adopter(args []string) {
	must(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	run("middle", args[1:])
	ready()
	for args[0] == "reap" {
		_, err := unix.Wait4(-1, nil, 0, nil)
		if err == unix.ECHILD {
			break
		}
	}
	sleepOn()
}

// nobodyExit prints how a process to which it has no ptrace access ended.
func nobodyExit(args []string) {
	dropUID()
	var id identity.Process
	must(json.Unmarshal([]byte(args[0]), &id))
	p, err := Open(id, "")
	must(err)
	ready()
	<-p.Done()
	fmt.Printf("exit %s %s\n", p.Exit(), p.Exit().Source)
}

// portOwner prints the owner of a port after it has dropped its privileges.
func portOwner(args []string, drop func()) {
	var f Family
	must(json.Unmarshal([]byte(args[0]), &f))
	main, err := OpenPID(f.Leader)
	must(err)
	f.Main = main
	drop()
	owner, err := ownerOf(f, number(args[1]))
	must(err)
	fmt.Printf("owner %s\n", owner)
}

// nobodyKill is a master without permission to signal one of its worker's children.
func nobodyKill(args []string) {
	seen := usr1()
	p, err := Start(Spec{
		Path: program, Args: childArgs("spawn-drop", "clear", "sleep"), Output: os.Stdout,
		Env: []string{EnvWorkerToken + "=" + args[0], EnvMasterID + "=" + testMaster()},
	})
	must(err)
	fmt.Printf("started %d\n", p.PID())
	<-seen // both are ready
	dropUID()
	ctx, cancel := testDeadline()
	defer cancel()
	left, err := Family{Token: args[0], Main: p}.Kill(ctx)
	<-p.Done()
	for _, h := range left {
		fmt.Printf("left %d\n", h.PID)
	}
	fmt.Printf("error %v\n", err)
}

// killOwn kills the family that it belongs to, except itself and its parent.
func killOwn(args []string) {
	if args[0] == "child" {
		spawn(false, []string{"kill-own", "now"})
		sleepOn()
	}
	seen := usr1()
	fmt.Printf("killer %d\n", os.Getpid())
	spawn(false, []string{"sleep"})
	<-seen // it is ready
	ctx, cancel := testDeadline()
	defer cancel()
	left, err := Family{Token: os.Getenv(EnvWorkerToken)}.Kill(ctx)
	fmt.Printf("killed %d %v %d\n", len(left), err, os.Getppid())
	sleepOn()
}

// connect connects to a unix socket.
func connect(args []string) {
	conn, err := net.Dial("unix", args[0])
	must(err)
	kept = append(kept, conn)
	ready()
	sleepOn()
}
