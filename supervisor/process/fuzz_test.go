package process

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Other processes control these texts by their names, titles and environments. The tests compare the parsers with
// a plain parser of the same text.

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(strings.Replace(statLine, "%s", "worker", 1)))
	f.Fuzz(func(t *testing.T, line []byte) {
		s, err := parseStat(line)
		want, ok := plainStat(string(line))
		if (err == nil) != ok || err == nil && s != want {
			t.Fatalf("%+v, %v, want %+v, %v", s, err, want, ok)
		}
		if err != nil {
			return
		}
		if s.PID < 1 {
			t.Errorf("pid %d", s.PID)
		}
		if s.ended() && s.stopped() {
			t.Errorf("state %c is both ended and stopped", s.State)
		}
		// Only the text after the last parenthesis counts.
		name := bytes.LastIndexByte(line, ')')
		again, err := parseStat([]byte(strconv.Itoa(s.PID) + " (x" + string(line[name:])))
		if err != nil || again != s {
			t.Errorf("with another command: %+v, %v, want %+v", again, err, s)
		}
	})
}

var statShape = regexp.MustCompile(`(?s)^([^(]+)\(.*\)([^)]*)$`)

func plainStat(line string) (s taskStat, ok bool) {
	parts := statShape.FindStringSubmatch(line)
	if parts == nil {
		return s, false
	}
	fields := strings.FieldsFunc(parts[2], func(r rune) bool { return r == ' ' || r == '\n' })
	if len(fields) < 50 || len(fields[0]) != 1 {
		return s, false
	}
	ok = true
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		ok = ok && err == nil
		return n
	}
	natural := func(text string, bits int) uint64 {
		n, err := strconv.ParseUint(text, 10, bits)
		ok = ok && err == nil
		return n
	}
	field := func(n int) string { return fields[n-3] } // as proc(5) counts
	s = taskStat{
		PID: number(strings.TrimSpace(parts[1])), State: field(3)[0],
		PPID: number(field(4)), PGID: number(field(5)), SID: number(field(6)),
		Flags: uint32(natural(field(9), 32)), Threads: number(field(20)),
		CPUTicks:   natural(field(14), 64) + natural(field(15), 64) + natural(field(16), 64) + natural(field(17), 64),
		StartTicks: natural(field(22), 64), ResidentPages: int64(number(field(24))),
		EnvEnd: natural(field(51), 64), ExitCode: number(field(52)),
	}
	return s, ok && s.PID > 0
}

func FuzzParseHolder(f *testing.F) {
	f.Add([]byte("PATH=/bin\x00HSU_MASTER_ID=m\x00HSU_STATE_DIR=1:2\x00HSU_WORKER_ID=worker-0\x00" +
		"HSU_WORKER_TOKEN=t\x00HSU_WORKER_PORT=40001\x00"))
	f.Fuzz(func(t *testing.T, environ []byte) {
		h, ok := parseHolder(environ)
		token, wantOK := plainEnv(environ, EnvWorkerToken)
		if ok != wantOK {
			t.Fatalf("%+v, %v, want token %q, %v", h, ok, token, wantOK)
		}
		want := Holder{Token: token}
		if ok {
			want.MasterID, _ = plainEnv(environ, EnvMasterID)
			want.StateDir, _ = plainEnv(environ, EnvStateDir)
			want.WorkerID, _ = plainEnv(environ, EnvWorkerID)
			port, _ := plainEnv(environ, EnvWorkerPort)
			if n, err := strconv.ParseUint(port, 10, 16); err == nil {
				want.Port = int(n)
			}
		}
		if h != want {
			t.Errorf("%+v, want %+v", h, want)
		}
		for _, value := range []string{h.Token, h.MasterID, h.StateDir, h.WorkerID} {
			if len(value) > maxValue || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Errorf("value %q is not safe to log", value)
			}
		}
	})
}

var safeValue = regexp.MustCompile(`^[!-~]{1,256}$`)

// plainEnv returns the result of getenv if that is safe.
func plainEnv(environ []byte, name string) (string, bool) {
	for entry := range strings.SplitSeq(string(environ), "\x00") {
		if value, found := strings.CutPrefix(entry, name+"="); found {
			if !safeValue.MatchString(value) {
				return "", false
			}
			return value, true
		}
	}
	return "", false
}

func FuzzParseSocketRow(f *testing.F) {
	f.Add([]byte(socketLine))
	f.Fuzz(func(t *testing.T, line []byte) {
		row, ok := parseSocketRow(line)
		if parts := rowShape.FindSubmatch(line); parts != nil {
			want := socketRow{listens: string(parts[2]) == "0A"}
			n, err := fmt.Sscanf(fmt.Sprintf("%s %s %s", parts[1], parts[3], parts[4]), "%x %d %d",
				&want.port, &want.uid, &want.inode)
			if ok != (err == nil && n == 3) || ok && row != want {
				t.Errorf("%+v, %v, want %+v, %v", row, ok, want, err)
			}
		}
		if !ok {
			return
		}
		if row.port < 0 || row.port > 65535 {
			t.Errorf("%+v", row)
		}
		// Format it as the kernel would have printed it.
		fields := strings.Fields(socketLine)
		fields[1] = "0100007F:" + strings.ToUpper(strconv.FormatInt(int64(row.port), 16))
		fields[3] = "01"
		if row.listens {
			fields[3] = "0A"
		}
		fields[7], fields[9] = strconv.FormatUint(uint64(row.uid), 10), strconv.FormatUint(row.inode, 10)
		if again, ok := parseSocketRow([]byte(strings.Join(fields, " "))); !ok || again != row {
			t.Errorf("printed and read again: %+v, %v, want %+v", again, ok, row)
		}
	})
}

// rowShape matches a row as the kernel prints it; its groups are the port, the state, the UID and the inode.
var rowShape = regexp.MustCompile(`^ *\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F:]+ ([0-9A-F]{2}) ` +
	`[0-9A-F:]+ [0-9A-F:]+ [0-9A-F]+ +(\d{1,9}) +\d+ (\d{1,18})( |\n|$)`)

func FuzzLocked(f *testing.F) {
	f.Add([]byte("pos:\t0\nflags:\t02100002\nlock:\t1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF\n"))
	f.Fuzz(func(t *testing.T, fdinfo []byte) {
		want := false
		for row := range strings.SplitSeq(string(fdinfo), "\n") {
			want = want || flockRow.MatchString(plain(row))
		}
		if got := locked(fdinfo); got != want {
			t.Errorf("%v, want %v", got, want)
		}
		if !bytes.HasSuffix(fdinfo, []byte("\n")) && len(fdinfo) > 0 {
			fdinfo = append(fdinfo, '\n')
		}
		if !locked(append(fdinfo, "lock:\t2: FLOCK  ADVISORY  WRITE 1 fe:00:1 0 EOF\n"...)) {
			t.Error("a lock at the end is overlooked")
		}
	})
}

var flockRow = regexp.MustCompile(`^lock: \S+ FLOCK \S+ WRITE( |$)`)

// plain returns line with single blanks between the words.
func plain(line string) string { return strings.Join(strings.Fields(line), " ") }

func FuzzWritesAnywhere(f *testing.F) {
	f.Add([]byte("pos:\t0\nflags:\t0102001\nmnt_id:\t30\n"))
	f.Add([]byte("pos:\t0\nflags:\t0100001\n"))
	f.Add([]byte("flags:\t0100000"))
	f.Add([]byte("flags:\t9\nflags:\t02001\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, fdinfo []byte) {
		want := true
		for row := range strings.SplitSeq(string(fdinfo), "\n") {
			text, found := strings.CutPrefix(row, "flags:")
			if !found {
				continue
			}
			if flags, err := strconv.ParseUint(strings.TrimSpace(text), 8, 64); err == nil {
				want = flags%4 != 0 && flags/1024%2 == 0
			}
			break
		}
		if got := writesAnywhere(fdinfo); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

func FuzzOwnNamespace(f *testing.F) {
	f.Add([]byte("Name:\tx\nNSpid:\t4711\t1\nNSpgid:\t1\n"))
	f.Add([]byte("Name:\tx\nNSpid:\t4711\n"))
	f.Add([]byte("Name:\tx\n"))
	f.Fuzz(func(t *testing.T, status []byte) {
		want := true
		for line := range strings.SplitSeq(string(status), "\n") {
			if strings.HasPrefix(line, "NSpid:") {
				want = !strings.Contains(plain(line[len("NSpid:"):]), " ")
				break
			}
		}
		if got := ownNamespace(status); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	})
}
