package procfs

import (
	"bytes"
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
		s, err := ParseStat(line)
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
		if s.Ended() && s.Stopped() {
			t.Errorf("state %c is both ended and stopped", s.State)
		}
		// Only the text after the last parenthesis counts.
		name := bytes.LastIndexByte(line, ')')
		again, err := ParseStat([]byte(strconv.Itoa(s.PID) + " (x" + string(line[name:])))
		if err != nil || again != s {
			t.Errorf("with another command: %+v, %v, want %+v", again, err, s)
		}
	})
}

var statShape = regexp.MustCompile(`(?s)^([^(]+)\(.*\)([^)]*)$`)

func plainStat(line string) (s Stat, ok bool) {
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
	s = Stat{
		PID: number(strings.TrimSpace(parts[1])), State: field(3)[0],
		PPID: number(field(4)), PGID: number(field(5)), SID: number(field(6)),
		Flags: uint32(natural(field(9), 32)), Threads: number(field(20)),
		CPUTicks:   natural(field(14), 64) + natural(field(15), 64) + natural(field(16), 64) + natural(field(17), 64),
		StartTicks: natural(field(22), 64), ResidentPages: int64(number(field(24))),
		EnvEnd: natural(field(51), 64), ExitCode: number(field(52)),
	}
	return s, ok && s.PID > 0
}

func FuzzLocked(f *testing.F) {
	f.Add([]byte("pos:\t0\nflags:\t02100002\nlock:\t1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF\n"))
	f.Fuzz(func(t *testing.T, fdinfo []byte) {
		want := false
		for row := range strings.SplitSeq(string(fdinfo), "\n") {
			want = want || flockRow.MatchString(plain(row))
		}
		if got := Locked(fdinfo); got != want {
			t.Errorf("%v, want %v", got, want)
		}
		if !bytes.HasSuffix(fdinfo, []byte("\n")) && len(fdinfo) > 0 {
			fdinfo = append(fdinfo, '\n')
		}
		if !Locked(append(fdinfo, "lock:\t2: FLOCK  ADVISORY  WRITE 1 fe:00:1 0 EOF\n"...)) {
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
		if got := WritesAnywhere(fdinfo); got != want {
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
