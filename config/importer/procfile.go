package importer

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// procfileLine matches a line of a Procfile: the name of a process and its command.
var procfileLine = regexp.MustCompile(`^([A-Za-z0-9_-]+):\s*(\S.*)$`)

// portStep is by how much foreman's ports of two processes differ.
const portStep = 100

func importProcfile(src *source) (*document, error) {
	d := newDocument()
	d.head = append(d.head, `A Procfile says nothing about restarts: here a process is always restarted.`)
	variables, found, err := dotenvOf(src)
	if err != nil {
		return nil, err
	}
	if found {
		d.defaults.setList("env_file", []string{dotenv})
	}
	base, _ := strconv.Atoi(variables["PORT"])
	index, line := 0, 0
	for text := range strings.SplitSeq(src.text(), "\n") {
		line++
		text = strings.TrimSpace(text)
		match := procfileLine.FindStringSubmatch(text)
		switch {
		case text == "" || text[0] == '#':
			continue
		case match == nil:
			d.units.note("Procfile line %d is not NAME: COMMAND, and has no effect: %s", line, text)
			continue
		}
		port := ""
		if base > 0 {
			port = strconv.Itoa(base + portStep*index)
		}
		d.process(match[1], match[2], port)
		index++
	}
	if index == 0 {
		return nil, &ImportError{File: src.path, Message: "no line is NAME: COMMAND: is it a Procfile?"}
	}
	return d, nil
}

// process adds a process of a Procfile. port is the one that foreman gives it because of the .env file, or "".
func (d *document) process(name, command, port string) {
	u := d.unit(name)
	u.set("kind", "managed")
	u.setList("command", arguments(shell("sh", "-c", literal(inPlace(command)))))
	if name == "release" {
		u.note("Heroku runs it once for each release; here it runs until it has succeeded, and not again after that")
		u.set("restart.policy", "on-failure")
		return
	}
	if name != "web" && !strings.Contains(command, "$PORT") && !strings.Contains(command, "${PORT") {
		return
	}
	if port != "" {
		u.set("port", port)
	} else {
		u.note("the master chooses a free port; for a fixed one, write port: 5000")
	}
	u.at("environment").named("PORT", "{port}")
}

// shell returns the command that runs a line in a shell.
func shell(program, argument string, line text) []text {
	return append(literals(program, argument), line)
}

// plainCommand matches a line for the shell that is a program and arguments, without a list, pipe or redirection.
var plainCommand = regexp.MustCompile("^[A-Za-z0-9_./-]+(\\s[^;&|<>()`\n]*)?$")

// builtins are commands of the shell that a line can begin with, and that are no programs.
var builtins = []string{
	".", "alias", "bg", "break", "case", "cd", "command", "continue", "eval", "exec", "exit", "export", "fg", "for",
	"if", "jobs", "read", "readonly", "return", "set", "shift", "source", "time", "times", "trap", "type", "ulimit",
	"umask", "unalias", "unset", "until", "wait", "while",
}

// inPlace returns the line for a shell so that the program takes the place of the shell, if it is one program.
func inPlace(line string) string {
	first, _, _ := strings.Cut(line, " ")
	if !plainCommand.MatchString(line) || slices.Contains(builtins, first) {
		return line
	}
	return fmt.Sprintf("exec %s", line)
}
