package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Fault is something wrong in a configuration file.
type Fault struct {
	File         string
	Line, Column int // from 1; 0 if the fault is about the whole file
	Message      string
	// Source is the line up to the end of the faulty text. It is empty if the line may contain a secret.
	Source string
	// Caret is the line below Source that marks the faulty text.
	Caret string
}

func (f Fault) String() string {
	place := f.File
	if f.Line > 0 {
		place = fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
	}
	text := fmt.Sprintf("%s: %s", place, f.Message)
	if f.Source != "" {
		text += fmt.Sprintf("\n    %s\n    %s", f.Source, f.Caret)
	}
	return text
}

// FaultError is the error of a file that cannot be used.
type FaultError struct {
	Faults []Fault // at least one, in the order of the text
}

// Error returns all faults, one below the other.
func (e *FaultError) Error() string {
	lines := make([]string, len(e.Faults))
	for i, fault := range e.Faults {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// UnitFault is something wrong with a unit that is not in the file itself, such as a program that this host does not
// have.
type UnitFault struct {
	Unit string
	Key  string // such as command or start.before; that of a check stands for health if the file has no such check
	Err  error
}

// Locate returns the faults of units with the places of the keys that they are about. The file must be from
// [LoadWithText]. What several units have from "defaults:" is a fault once.
func (f *File) Locate(found []UnitFault) []Fault {
	var faults faultList
	for _, src := range f.sources {
		faults.files = append(faults.files, src.name)
	}
	index := map[string]int{}
	for i, u := range f.Units {
		index[u.Name] = i
	}
	r := reader{faults: &faults}
	for _, fault := range found {
		i, known := index[fault.Unit]
		if !known {
			continue
		}
		keys := strings.Split(fault.Key, ".")
		if (keys[0] == "readiness" || keys[0] == "liveness") && f.units[i].get(keys[0]).blank() {
			keys[0] = "health"
		}
		r.path = append([]string{"units", fault.Unit}, keys...)
		at := f.units[i].deepest(keys...)
		if items := itemsOf(at); len(items) > 0 {
			at = items[0] // of a command, the program
		}
		r.fault(at, "%s", fault.Err)
	}
	if err, faulty := errors.AsType[*FaultError](faults.err()); faulty {
		return err.Faults
	}
	return nil
}

// maxFaults bounds the faults of a file. A person does not read more, and suggesting names takes time.
const maxFaults = 100

// faultList collects faults.
type faultList struct {
	list  []Fault
	files []string            // in the order in which they are read
	known map[foundFault]bool // a fault of "defaults:" is found again in each unit
}

// foundFault identifies a fault, whichever unit it was found in.
type foundFault struct {
	at     place
	reason string
}

func (l *faultList) full() bool { return len(l.list) >= maxFaults }

func (l *faultList) any() bool { return len(l.list) > 0 }

func (l *faultList) add(at place, format string, args ...any) {
	l.addFor("", at, format, args...)
}

// addFor adds a fault of the value that prefix names.
func (l *faultList) addFor(prefix string, at place, format string, args ...any) {
	if l.full() {
		return
	}
	found := foundFault{at, strings.ToValidUTF8(fmt.Sprintf(format, args...), "\uFFFD")}
	if l.known[found] {
		return
	}
	if l.known == nil {
		l.known = map[foundFault]bool{}
	}
	l.known[found] = true
	l.list = append(l.list, at.fault(printable(prefix+found.reason)))
}

// err returns the faults in the order of the text, or nil if there are none. The main file is first.
func (l *faultList) err() error {
	if len(l.list) == 0 {
		return nil
	}
	slices.SortStableFunc(l.list, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(slices.Index(l.files, a.File), slices.Index(l.files, b.File)),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if l.full() {
		l.list = append(l.list, Fault{File: l.files[0], Message: "more faults are not shown"})
	}
	return &FaultError{l.list}
}

// place is a text in a file.
type place struct {
	src          *source
	line, column int32
	width        int32 // of the marked text, in characters
}

func (p place) fault(message string) Fault {
	f := Fault{Message: message}
	if p.src == nil {
		return f
	}
	f.File, f.Line, f.Column = p.src.name, int(p.line), int(p.column)
	if p.line == 0 || p.src.secret(f.Line, int(p.column+p.width)-1) {
		return f
	}
	f.Source, f.Caret = p.marked(p.src.lines()[f.Line-1])
	return f
}

// maxShown bounds the characters of a source line that a fault shows.
const maxShown = 100

// marked returns the line up to the end of the marked text, and carets below that text. What follows is left out:
// below an unknown key it may be a secret.
func (p place) marked(line string) (source, caret string) {
	chars := []rune(strings.ReplaceAll(line, "\t", " "))
	start := min(max(int(p.column)-1, 0), len(chars))
	end := min(start+max(int(p.width), 1), len(chars))
	shown, before := chars[:end], start
	if len(shown) > maxShown {
		cut := min(max(0, start-maxShown/2), len(shown)-maxShown)
		shown, before = shown[cut:][:maxShown], start-cut
	}
	if strings.TrimSpace(string(shown)) == "" {
		return "", ""
	}
	width := max(1, len(shown)-before)
	return printable(strings.TrimRight(string(shown), " ")), strings.Repeat(" ", before) + strings.Repeat("^", width)
}

// printable replaces the characters that a terminal could take for commands.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return '?'
		}
		return c
	}, s)
}
