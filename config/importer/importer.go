package importer

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/config"
	"github.com/core-tools/hsu-master/internal/nearest"
)

// The formats that can be imported.
const (
	Procman        = "procman"
	Supervisord    = "supervisord"
	ProcessCompose = "process-compose"
	Procfile       = "procfile"
)

// Formats returns the names of the formats.
func Formats() []string { return []string{Procman, Supervisord, ProcessCompose, Procfile} }

// ErrFormat is returned if there is no format with the name.
var ErrFormat = errors.New("unknown format")

// maxSize bounds a file to import and the result, in bytes.
const maxSize = 1 << 20

// ImportError is the error of a file that cannot be imported.
type ImportError struct {
	File    string
	Line    int // 0 if the error is about the whole file
	Message string
}

func (e *ImportError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message)
	}
	return fmt.Sprintf("%s: %s", e.File, e.Message)
}

// Import returns the configuration file for a file of another format. It is meant to be saved in the folder of that
// file. A file that cannot be read as its format is an [*ImportError] or a [*config.FaultError].
func Import(format, path string, host config.Host) ([]byte, error) {
	read, known := map[string]func(*source) (*document, error){
		Procman: importProcman, Supervisord: importSupervisord, ProcessCompose: importProcessCompose,
		Procfile: importProcfile,
	}[format]
	if !known {
		return nil, fmt.Errorf("%w %q%s: must be one of %s", ErrFormat, format,
			nearest.DidYouMean(strings.ToLower(format), Formats()), strings.Join(Formats(), ", "))
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("find the folder of %s: %w", path, err)
	}
	src := &source{format: format, path: path, dir: dir, host: host, left: maxSize}
	if src.content, err = src.readFile(path); err != nil {
		return nil, err
	}
	d, err := read(src)
	if err != nil {
		return nil, err
	}
	if d.full() {
		return nil, src.tooLarge()
	}
	d.head = append([]string{
		fmt.Sprintf("Made of %s by \"hsu-master config import --from %s\".", filepath.Base(path), format),
		"Save this file in the same folder: relative paths start at the folder of the file that has them.",
		"Comments name all that has no counterpart here, or is not quite the same: docs/COMING-FROM.md.",
	}, d.head...)
	if missing := src.missing(d); len(missing) > 0 {
		d.head = append(d.head, "These variables are not set here, and are empty unless the master has them: "+
			strings.Join(missing, ", ")+".")
	}
	return valid(d, src)
}

// source is a file to import.
type source struct {
	format  string
	path    string
	dir     string // its folder, an absolute path
	content []byte
	host    config.Host
	left    int             // how many bytes more can be read
	unset   map[string]bool // the variables that the result uses and that are not set here
}

// readFile reads the file, or one that it includes.
func (s *source) readFile(path string) ([]byte, error) {
	content, err := s.host.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the file to import: %w", err)
	}
	if s.left -= len(content); s.left < 0 {
		return nil, &ImportError{File: path, Message: fmt.Sprintf(
			"more than %d bytes to read: import parts of the file one by one", maxSize)}
	}
	line := 1
	for rest := content; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			return nil, &ImportError{path, line, "the text is not UTF-8: name a text file"}
		case r < ' ' && !strings.ContainsRune("\n\r\t\f\v", r):
			return nil, &ImportError{path, line, fmt.Sprintf("the character %U is not allowed: name a text file", r)}
		case r == '\n':
			line++
		}
		rest = rest[size:]
	}
	return content, nil
}

func (s *source) tooLarge() error {
	return &ImportError{File: s.path, Message: fmt.Sprintf("the result is too large, with more than %d bytes or %d "+
		"keys in a map: import parts of the file one by one", maxSize, maxEntries)}
}

// text returns the content of the file, without a byte order mark and with \n as the end of all lines.
func (s *source) text() string { return normalized(s.content) }

func normalized(content []byte) string {
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.TrimPrefix(string(content), "\uFEFF"))
}

// exists reports whether there is a file beside the imported one.
func (s *source) exists(name string) bool {
	_, err := s.host.ReadFile(filepath.Join(s.dir, name))
	return err == nil
}

// variable returns the reference to an environment variable. If it is not set here, the reference has an empty
// fallback, because config check refuses one without.
func (s *source) variable(name string) (ref string, set bool) {
	if _, set = s.host.Variable(name); set {
		return "${" + name + "}", true
	}
	if s.unset == nil {
		s.unset = map[string]bool{}
	}
	s.unset[name] = true
	return "${" + name + ":-}", false
}

// missing returns the variables that are not set here and that the document uses.
func (s *source) missing(d *document) []string {
	_, owners := d.print()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.unset)) {
		if slices.ContainsFunc(owners, func(e *entry) bool { return e.uses("${" + name + ":-}") }) {
			names = append(names, name)
		}
	}
	return names
}

// resultName is the name that the result has for the loader.
const resultName = "hsu-master.yaml"

// passes bounds how often the result is read again. Later passes leave out more at once.
const passes = 40

// valid prints the document until the loader accepts it. Each refused entry becomes a comment with the reason.
func valid(d *document, src *source) ([]byte, error) {
	for pass := range passes {
		printed, owners := d.print()
		if len(printed) > maxSize {
			return nil, src.tooLarge()
		}
		faults, err := src.load(printed)
		switch {
		case err != nil:
			return nil, err
		case len(faults) == 0:
			return []byte(printed), nil
		}
		if !d.leaveOut(faults, owners, pass > passes/2) {
			break
		}
	}
	for _, e := range d.root.entries {
		if e.form != noteEntry && e.name != "units" {
			e.fault = "the file is not valid with it"
		}
	}
	for _, e := range d.units.entries {
		e.fault = "the file is not valid with it"
	}
	printed, _ := d.print()
	if faults, err := src.load(printed); err != nil || len(faults) > 0 {
		return nil, &ImportError{File: src.path, Message: fmt.Sprintf("no valid file can be made of it: %v", faults)}
	}
	return []byte(printed), nil
}

// load has package config read a result as if it were saved, and returns the faults.
func (s *source) load(printed string) ([]config.Fault, error) {
	path := filepath.Join(s.dir, resultName)
	host := s.host
	host.ReadFile = func(name string) ([]byte, error) {
		if name == path {
			return []byte(printed), nil
		}
		return s.host.ReadFile(name)
	}
	host.CheckTrusted = func(name string) error {
		if name == path {
			return nil
		}
		return s.host.CheckTrusted(name)
	}
	_, err := config.Load(path, host)
	if faulty, ok := errors.AsType[*config.FaultError](err); ok {
		return faulty.Faults, nil
	}
	return nil, err
}

// leaveOut makes comments of the entries with faults, and reports whether there was one. With whole, the units that
// the entries are in become comments.
func (d *document) leaveOut(faults []config.Fault, owners []*entry, whole bool) bool {
	done := false
	for _, fault := range faults {
		if fault.Line < 1 || fault.Line > len(owners) {
			continue
		}
		at := fault.Line - 1
		e := owners[at]
		for whole && at >= 0 && (e == nil || !slices.Contains(d.units.entries, e)) {
			if at--; at >= 0 {
				e = owners[at]
			}
		}
		if e == nil || e.sub == d.units || e.fault != "" {
			continue
		}
		e.fault, done = fault.Message, true
	}
	return done
}
