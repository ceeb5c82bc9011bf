// Command unit is a worker with the habits that a test selects, most of them bad ones.
package main

import (
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The main goroutine stays on the first thread, for the habit that ends this thread.
func init() { runtime.LockOSThread() }

type options struct {
	habit, record string
	notes         string
	echo          bool
	descendants   []string
	port, number  int

	registry, listen string // of the habit module
	patient          bool   // so is this
}

func main() {
	o := parse()
	if o.habit == "moody" {
		o.habit = mood(os.Getenv("HSU_WORKER_TOKEN"))
	}
	switch o.habit {
	case "exits":
		fmt.Println("reading the configuration")
		fmt.Fprintln(os.Stderr, "configuration: no such table: unicorns")
		os.Exit(7)
	case "sleeper", "stopped", "nolease", "polite", "chain", "barechain", "detour":
		descend(o)
	case "decoy":
		decoy(o)
	case "hog":
		for {
		}
	case "nolocks":
		withoutLocks(flag.Args())
	case "first":
		asFirst(flag.Args())
	case "init":
		beFirst(o)
	case "reborn":
		beReborn(o)
	}
	for _, kind := range o.descendants {
		spawn(kind, o.record)
	}
	switch o.habit {
	case "deaf":
		// Not select: Go ends a program in which all goroutines are blocked.
		time.Sleep(math.MaxInt64)
	case "mute":
		mute(o.port)
	case "notifier":
		if o.port == 0 {
			notify(o.record)
		}
		go notify(o.record)
	case "telling":
		go tell()
	case "once":
		send("READY=1")
	case "grower":
		go grow()
	case "titled":
		overwriteTitle()
	case "undumpable":
		hide()
	case "nobody":
		becomeNobody()
	case "late":
		awaitLeave(o.record)
	case "leaver":
		time.AfterFunc(100*time.Millisecond, func() { os.Exit(3) })
	}
	go func() {
		if err := serve(o); err != nil {
			fmt.Fprintln(os.Stderr, "unit:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}()
	if o.habit == "leaderless" {
		// This ends the thread alone. The runtime assumes that it is in a long system call.
		_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
	}
	select {}
}

// parse copies the arguments, because their own memory may be overwritten later.
func parse() options {
	as := flag.String("as", "plain",
		"`HABIT[+DESCENDANT...]`; several with commas between, a worker takes that of its number")
	record := flag.String("record", "", "`FOLDER` where descendants leave their PIDs")
	notes := flag.String("notes", "", "`FOLDER` where workers note the requests that they handle")
	echo := flag.Bool("echo", false, "offer the echo service too, and answer other methods as streams")
	port := flag.Int("port", 0, "")
	registry := flag.String("registry", "", "`PATH` of the socket at which the habit module publishes itself")
	patient := flag.Bool("patient", false, "the habit module waits for the registry instead of failing")
	listen := flag.String("listen", "127.0.0.1:0",
		"`ADDRESSES` of the habit module, with commas between; it serves the last")
	number := flag.Int("number", 0, "what the habits init and reborn are about")
	flag.Parse()
	all := strings.Split(*as, ",")
	mine := all[0]
	if _, number, found := strings.Cut(os.Getenv("HSU_WORKER_ID"), "-"); found {
		if n, err := strconv.Atoi(number); err == nil {
			mine = all[n%len(all)]
		}
	}
	parts := strings.Split(strings.Clone(mine), "+")
	return options{
		habit: parts[0], descendants: parts[1:], record: strings.Clone(*record), notes: strings.Clone(*notes),
		echo: *echo, port: *port, number: *number,
		registry: strings.Clone(*registry), listen: strings.Clone(*listen), patient: *patient,
	}
}

// mood returns the habit of an instance of a moody worker, different for each instance.
func mood(token string) string {
	moods := []string{"plain", "plain", "plain", "plain", "exits", "exits", "leaver", "leaver", "mute", "deaf"}
	n, _ := strconv.ParseUint(token[:min(8, len(token))], 16, 64)
	return moods[n%uint64(len(moods))]
}

// awaitLeave returns when the test has created the file that lets it continue.
func awaitLeave(record string) {
	for {
		if _, err := os.Stat(filepath.Join(record, "go-on")); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// mute accepts connections and never sends anything.
func mute(port int) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "unit:", err)
		os.Exit(1)
	}
	fmt.Println("listening, and that is all")
	var held []net.Conn // otherwise the garbage collector closes them
	for {
		if conn, err := l.Accept(); err == nil {
			held = append(held, conn)
		}
	}
}

// decoy is a foreign process: it records every signal that it gets. Its parent notices the two that cannot be
// caught.
func decoy(o options) {
	if o.number != 0 && o.number != os.Getpid() {
		os.Exit(0) // the parent tries again
	}
	if o.port != 0 {
		go mute(o.port)
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	signal.Reset(syscall.SIGURG) // the runtime uses it
	leave(o.record, "decoy")
	for s := range signals {
		if s == syscall.SIGURG {
			continue
		}
		f, err := os.OpenFile(filepath.Join(o.record, "signals"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			_, _ = fmt.Fprintln(f, s)
			_ = f.Close()
		}
	}
}

// leave creates a file with this process's PID for the test, atomically.
func leave(record, kind string) {
	name := filepath.Join(record, fmt.Sprintf("%s.%d", kind, os.Getpid()))
	if err := os.WriteFile(name+".new", nil, 0o600); err != nil {
		fmt.Fprintln(os.Stderr, "unit:", err)
		os.Exit(1)
	}
	_ = os.Rename(name+".new", name)
}

// hide makes memory, environment and descriptors unreadable for all users but root, as programs with keys do.
func hide() {
	if _, _, errno := syscall.Syscall6(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0, 0, 0, 0); errno != 0 {
		panic(errno)
	}
	fmt.Println("hidden from others")
}

// becomeNobody gives up root's privileges permanently, as servers do.
func becomeNobody() {
	const nobody = 65534
	if err := syscall.Setgid(nobody); err != nil {
		panic(err)
	}
	if err := syscall.Setuid(nobody); err != nil {
		panic(err)
	}
}

// overwriteTitle overwrites arguments and environment with another text, as programs do that show their activity in
// ps.
func overwriteTitle() {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		panic(err)
	}
	// Field 3 follows the name in brackets; 48 is arg_start, 51 env_end.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	first, _ := strconv.ParseInt(fields[48-3], 10, 64)
	last, _ := strconv.ParseInt(fields[51-3], 10, 64)
	title := make([]byte, last-first)
	copy(title, "unit: idle, in a title of its own")
	mem, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	defer mem.Close()
	if _, err := mem.WriteAt(title, first); err != nil {
		panic(err)
	}
}
