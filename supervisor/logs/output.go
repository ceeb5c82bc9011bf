package logs

import "fmt"

// Target is where a worker writes its output.
type Target string

// The values of Target.
const (
	ToFile    Target = ""        // a file of its own
	ToJournal Target = "journal" // the journal of systemd, under the worker's id
	ToInherit Target = "inherit" // the standard output and error of the master
)

// Output is where a worker writes its output, and how its file is rotated.
type Output struct {
	To Target
	Policy
}

// WithDefaults returns the output with every zero size and number replaced.
func (o Output) WithDefaults() Output {
	o.Policy = o.Policy.WithDefaults()
	return o
}

// Validate returns why the output cannot be as it says.
func (o Output) Validate() error {
	switch o.To {
	case ToFile, ToJournal, ToInherit:
	default:
		return fmt.Errorf("log: to %q: must be %q, %q, or empty for a file", o.To, ToJournal, ToInherit)
	}
	if o.MaxSize < 0 || o.MaxAge < 0 {
		return fmt.Errorf("log: size %d, age %s: must not be negative", o.MaxSize, o.MaxAge)
	}
	return nil
}

// Elsewhere tells people where the output of a worker is if it is not in a file; "" if it is.
func (t Target) Elsewhere(worker string) string {
	switch t {
	case ToJournal:
		return fmt.Sprintf(`its output goes to the journal: "journalctl -t %s"`, worker)
	case ToInherit:
		return "its output goes to the output of the master"
	case ToFile:
	}
	return ""
}
