//go:build e2e && linux && (crash || torture)

package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// hooks are the commands of a unit that run around its workers: the path of their folder, empty if there are none.
// Workers and commands note their acts there, in a file for each worker.
type hooks string

// Notes of a worker and its commands: a command's begin is in upper case, its success in lower case.
const (
	noteStart  = "W" // the worker's program runs
	noteBefore = "B"
	noteStop   = "S"
	noteAfter  = "A"
	noteTwin   = "twin"
)

// command notes its begin, and whether another run of it lives: the last one has left its PID. It takes longer than the
// start of a master, so that the next one finds it alive.
const command = `#!/bin/sh
note="$1.$2"
if read -r last <"$1.pid.$3" && [ "$last" != $$ ] &&
	tr '\0' '\n' <"/proc/$last/environ" | grep -qx "HSU_WORKER_ID=$HSU_WORKER_ID"; then
	echo twin >>"$note"
fi 2>/dev/null
echo $$ >"$1.pid.$3"
echo "$3" >>"$note"
sleep 0.1
echo "$3" | tr BSA bsa >>"$note"
`

// addHooks gives the unit of the rig hooks.
func (r *rig) addHooks() error {
	r.hooks = hooks(filepath.Join(r.dir, "hooks"))
	script := "#!/bin/sh\necho " + noteStart + " >>" + string(r.hooks) + "/note.$HSU_WORKER_ID\n" +
		"exec " + harness.Programs.Unit + " \"$@\"\n"
	return errors.Join(
		os.Mkdir(string(r.hooks), 0o700),
		harness.WriteProgram(r.program, []byte(script)),
		harness.WriteProgram(filepath.Join(string(r.hooks), "command"), []byte(command)),
	)
}

// keys returns the keys "start" and "stop" of the unit.
func (h hooks) keys() string {
	if h == "" {
		return "    stop: {grace: 250ms}\n"
	}
	run := func(note string) string {
		return fmt.Sprintf("[%q, %q, \"{worker}\", %s]", string(h)+"/command", string(h)+"/note", note)
	}
	// No command may fail by its limit on a busy machine.
	return fmt.Sprintf("    start: {before: %s}\n    stop: {grace: 20s, command: %s, after: %s}\n",
		run(noteBefore), run(noteStop), run(noteAfter))
}

// check returns an error unless each instance of a worker was started after a successful start.before, and followed by
// a successful stop.after before the next start.before, and unless the last instance runs.
func (h hooks) check() error {
	if h == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(string(h), "note.worker-*"))
	if err != nil || len(files) == 0 {
		return errors.Join(err, errors.New("no command was run"))
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := checkNotes(strings.Fields(string(text))); err != nil {
			return fmt.Errorf("%s: %w: %q", filepath.Base(path), err, text[max(0, len(text)-200):])
		}
	}
	return nil
}

func checkNotes(notes []string) error {
	last, due := "", false // due: stop.after
	for _, note := range notes {
		switch note {
		case noteTwin:
			return errors.New("a command has run twice at once")
		case noteStart:
			if last != strings.ToLower(noteBefore) {
				return errors.New("a worker was started without start.before")
			}
			due = true
		case noteBefore:
			if due {
				return errors.New("start.before ran before stop.after")
			}
		case strings.ToLower(noteAfter):
			due = false
		}
		last = note
	}
	if last != noteStart {
		return errors.New("the last instance has not begun, or is not the last that was noted")
	}
	return nil
}
