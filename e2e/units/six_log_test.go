//go:build e2e && linux

package units

import (
	"bytes"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/supervisor/logs"
)

// spoken is a whole line of the chatter: the process and its number of the line. Each line that contains said is one.
var spoken = regexp.MustCompile(`^(\d+) (\d{8}) What is written here is kept while no master runs\.$`)

const said = "What is written"

func (s *six) chatterPath() string { return filepath.Join(s.State, "logs", "chatter-0.log") }

// rotatedLogs returns the rotated files of the chatter, oldest first: those with a number, and perhaps ".gz". A file
// that has just been compressed may exist in both forms, of which the compressed one is returned.
func (s *six) rotatedLogs() []string {
	paths, _ := filepath.Glob(s.chatterPath() + ".*")
	byNumber := map[int]string{}
	for _, path := range paths {
		number, compressed := strings.CutSuffix(strings.TrimPrefix(path, s.chatterPath()+"."), ".gz")
		n, err := strconv.Atoi(number)
		if err == nil && (compressed || byNumber[n] == "") {
			byNumber[n] = path
		}
	}
	paths = nil
	for _, n := range slices.Sorted(maps.Keys(byNumber)) {
		paths = append(paths, byNumber[n])
	}
	return paths
}

// chatterLog returns all lines of the chatter, oldest first, and the number of rotated files. No master may run. The
// last one may have left a rotation that the next one would complete, so the log is read as the product reads it.
func (s *six) chatterLog() (lines []string, rotated int) {
	s.T.Helper()
	var text bytes.Buffer
	if err := logs.CopyAll(&text, s.chatterPath()); err != nil {
		s.T.Fatal(err)
	}
	return strings.Split(text.String(), "\n"), len(s.rotatedLogs())
}

// wantWholeLog checks that each process of the chatter has written all its lines, once, in order and whole, at least
// atLeast together, and returns the number of rotated files. No master may run.
func (s *six) wantWholeLog(atLeast int) (rotated int) {
	s.T.Helper()
	lines, rotated := s.chatterLog()
	last := map[string]int{} // by process
	found := 0
	for _, line := range lines {
		match := spoken.FindStringSubmatch(line)
		if match == nil {
			if strings.Contains(line, said) {
				s.T.Errorf("a torn line: %q", line)
			}
			continue
		}
		n, err := strconv.Atoi(match[2])
		if last[match[1]]++; err != nil || n != last[match[1]] {
			s.T.Errorf("line %q comes where number %d is due", line, last[match[1]])
			last[match[1]] = n
		}
		found++
	}
	if found < atLeast {
		s.T.Errorf("the log has %d lines, want %d", found, atLeast)
	}
	return rotated
}
