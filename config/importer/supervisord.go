package importer

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// supervisord is the import of a supervisord.conf.
type supervisord struct {
	*document
	src      *source
	sections []*section
	programs map[string]unit   // by their names; the first one of those with several units
	literals map[string]string // the literal part of the environment of [supervisord]
	host     string
	made     int // units
}

func importSupervisord(src *source) (*document, error) {
	s := &supervisord{
		document: newDocument(), src: src, programs: map[string]unit{}, literals: map[string]string{},
	}
	s.host, _ = os.Hostname()
	if err := s.read(); err != nil {
		return nil, err
	}
	s.head = append(s.head, "supervisord starts with relative paths in its own working directory.")
	for _, section := range s.sections {
		if section.name == "supervisord" {
			s.master(section)
		}
	}
	for _, section := range s.sections {
		if err := s.section(section); err != nil {
			return nil, err
		}
	}
	return s.document, nil
}

// read reads the file, and those that [include] names.
func (s *supervisord) read() error {
	sections, err := parseINI(s.src.path, s.src.text())
	if err != nil {
		return err
	}
	s.sections = sections
	for _, section := range sections {
		files := section.get("files")
		if section.name != "include" || files == nil {
			continue
		}
		patterns, err := s.expand(files.value, s.common("", ""))
		if err != nil {
			return &ImportError{files.file, files.line, "files: " + err.Error()}
		}
		for pattern := range strings.FieldsSeq(s.resolved(patterns)) {
			if err := s.include(files, pattern); err != nil {
				return err
			}
		}
	}
	return nil
}

// resolved returns a text with the values of its variables.
func (s *supervisord) resolved(t text) string {
	var b strings.Builder
	for _, c := range t {
		if name, isVariable := strings.CutPrefix(c.ref, "${"); isVariable {
			name, _, _ = strings.Cut(strings.TrimSuffix(name, "}"), ":-")
			value, _ := s.src.host.Variable(name)
			b.WriteString(value)
			continue
		}
		b.WriteRune(c.r)
	}
	return b.String()
}

func (s *supervisord) include(from *option, pattern string) error {
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(s.src.dir, pattern)
	}
	paths, err := s.src.host.Glob(pattern)
	if err != nil {
		return &ImportError{from.file, from.line, fmt.Sprintf("files: %q: %s", pattern, err)}
	}
	if len(paths) == 0 {
		s.remark("supervisord [include] files: nothing matches %s", pattern)
	}
	for _, path := range paths {
		content, err := s.src.readFile(path)
		if err != nil {
			return err
		}
		included, err := parseINI(path, normalized(content))
		if err != nil {
			return err
		}
		s.remark("supervisord [include] %s is part of this file", path)
		for _, section := range included {
			if section.name == "include" {
				s.remark("supervisord [include] in %s: supervisord does not read it", path)
				continue
			}
			s.merge(section)
		}
	}
	return nil
}

// merge adds a section of an included file. The options of one that exists are added to it.
func (s *supervisord) merge(added *section) {
	for _, section := range s.sections {
		if section.name == added.name {
			section.options = append(section.options, added.options...)
			return
		}
	}
	s.sections = append(s.sections, added)
}

func (s *supervisord) section(of *section) error {
	kind, name, _ := strings.Cut(of.name, ":")
	name = strings.TrimSpace(name)
	switch kind {
	case "supervisord", "include": // done
	case "program", "fcgi-program", "eventlistener":
		if name == "" {
			return &ImportError{of.file, of.line, "the section has no name: write [" + kind + ":NAME]"}
		}
		return s.program(kind, name, of)
	case "group":
		s.units.note("supervisord [%s]: no counterpart%s", of.name, optionTexts(of))
	default:
		s.remark("supervisord [%s]: no counterpart%s", of.name, optionTexts(of))
	}
	return nil
}

// optionTexts returns the options of a section, each in a line. Passwords are not repeated.
func optionTexts(of *section) string {
	var b strings.Builder
	for _, o := range of.options {
		value := oneLine(o.value)
		if o.name == "password" {
			value = "..."
		}
		fmt.Fprintf(&b, "\n  %s=%s", o.name, value)
	}
	return b.String()
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }

// master imports [supervisord].
func (s *supervisord) master(of *section) {
	d := s.defaults
	for _, o := range lastOptions(of) {
		value, err := s.expand(o.value, s.common("", ""))
		if err != nil {
			s.remark("supervisord %s=%s: %s", o.name, oneLine(o.value), err)
			continue
		}
		switch o.name {
		case "environment":
			list, err := pairs(value)
			if err != nil {
				s.remark("supervisord %s=%s: %s", o.name, oneLine(o.value), err)
			}
			for _, v := range list {
				d.at("environment").named(v.name, v.value.argument())
				if !v.value.refers("") {
					s.literals[v.name] = string(runes(v.value))
				}
			}
		case "directory":
			setPath(d, "working_dir", value)
		case "umask":
			d.set("umask", octal(o.value))
		case "minfds":
			d.set("limits.open_files", o.value)
		case "loglevel":
			s.setting("log.level", logLevel(o.value))
		case "nodaemon":
			if !isTrue(o.value) {
				s.remark("supervisord nodaemon=%s: hsu-master stays in the foreground", o.value)
			}
		case "user":
			s.remark("supervisord user=%s: no counterpart: start the master as this user", o.value)
		default:
			s.remark("supervisord %s=%s: no counterpart", o.name, oneLine(o.value))
		}
	}
}

// lastOptions returns the options of a section without those that a later one replaces.
func lastOptions(of *section) []option {
	last := map[string]int{}
	for i, o := range of.options {
		last[o.name] = i
	}
	options := make([]option, 0, len(last))
	for _, i := range slices.Sorted(maps.Values(last)) {
		options = append(options, of.options[i])
	}
	return options
}

func runes(t text) []rune {
	list := make([]rune, len(t))
	for i, c := range t {
		list[i] = c.r
	}
	return list
}

// maxUnits bounds the units that programs with several processes become.
const maxUnits = 1_000

// program imports a section of processes: as one unit with replicas if the processes differ in nothing but what
// {replica} stands for, and otherwise as one unit for each.
func (s *supervisord) program(kind, name string, of *section) error {
	count, first := 1, 0
	for option, at := range map[string]*int{"numprocs": &count, "numprocs_start": &first} {
		o := of.get(option)
		if o == nil {
			continue
		}
		value, err := s.expand(o.value, s.common(name, s.group(name)))
		if err == nil {
			*at, err = strconv.Atoi(s.resolved(value))
		}
		if err != nil || *at < 0 || *at > maxUnits {
			return &ImportError{o.file, o.line, fmt.Sprintf("%s must be a whole number from 0 to %d", option, maxUnits)}
		}
	}
	replicas := count > 1 && first == 0 && !s.differs(of)
	if count <= 1 || replicas {
		vars := s.common(name, s.group(name))
		vars["numprocs"] = number(count)
		vars["process_num"] = number(first)
		u := s.unit(name)
		if replicas {
			vars["process_num"] = reference("{replica}")
			u.set("replicas", strconv.Itoa(count))
		} else if count == 0 {
			u.set("replicas", "0")
		}
		s.fill(u, kind, of, vars)
		return nil
	}
	if s.made += count; s.made > maxUnits {
		return &ImportError{of.file, of.line, fmt.Sprintf(
			"the programs have more than %d processes with commands of their own", maxUnits)}
	}
	s.units.note("supervisord [%s]: a unit for each of numprocs=%d, because {replica} counts from 0 "+
		"without leading zeros", of.name, count)
	for num := first; num < first+count && !s.full(); num++ {
		vars := s.common(name, s.group(name))
		vars["numprocs"], vars["process_num"] = number(count), number(num)
		s.fill(s.unit(fmt.Sprintf("%s_%d", name, num)), kind, of, vars)
	}
	return nil
}

// plainNumber removes the expansions that {replica} can stand for.
var plainNumber = strings.NewReplacer("%(process_num)d", "", "%(process_num)s", "", "%(process_num)i", "")

// differs reports whether the processes of a section differ in what {replica} cannot express.
func (s *supervisord) differs(of *section) bool {
	for _, o := range lastOptions(of) {
		switch o.name {
		case "process_name", "stdout_logfile", "stderr_logfile":
			continue // they have no counterpart anyway
		}
		rest := plainNumber.Replace(o.value)
		inWords := o.name == "command" || o.name == "environment"
		if strings.Contains(rest, "%(process_num)") || rest != o.value && !inWords {
			return true
		}
	}
	return false
}

// group returns the group of a program.
func (s *supervisord) group(program string) string {
	for _, section := range s.sections {
		group, isGroup := strings.CutPrefix(section.name, "group:")
		if programs := section.get("programs"); isGroup && programs != nil {
			for name := range strings.SplitSeq(programs.value, ",") {
				if strings.TrimSpace(name) == program {
					return strings.TrimSpace(group)
				}
			}
		}
	}
	return program
}

// fill imports the options of a program. The command is first, because readers look for it.
func (s *supervisord) fill(u unit, kind string, of *section, vars map[string]text) {
	if _, known := s.programs[of.name]; !known {
		s.programs[of.name] = u
	}
	u.set("kind", "managed")
	switch kind {
	case "fcgi-program":
		u.leaveOut("supervisord passes the socket as descriptor 0: no counterpart")
	case "eventlistener":
		u.leaveOut("it speaks supervisord's protocol of events: no counterpart")
	}
	p := program{supervisord: s, unit: u, vars: vars, of: of}
	if dir := s.defaults.find("working_dir"); dir != nil {
		p.directory = dir.text
	}
	options := lastOptions(of)
	slices.SortStableFunc(options, func(a, b option) int { return rank(a) - rank(b) })
	for _, o := range options {
		vars["here"] = s.here(o)
		value, err := s.expand(o.value, vars)
		if err == nil {
			err = p.take(o, value)
		}
		if err != nil {
			u.note("supervisord %s=%s: %s", o.name, oneLine(o.value), err)
		}
	}
	if of.get("autorestart") == nil {
		u.set("restart.policy", "on-failure") // supervisord's default
	}
	if p.relative != nil && p.directory != "" {
		p.relative[0] = p.directory + "/" + strings.TrimPrefix(p.relative[0], "./")
		u.setList("command", p.relative)
	}
}

func rank(o option) int {
	if o.name == "command" {
		return 0
	}
	return 1
}
