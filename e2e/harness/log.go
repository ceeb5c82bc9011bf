//go:build e2e && linux

package harness

import (
	"encoding/json"
	"strings"
	"time"
)

// LogLine is a line of the master's log.
type LogLine struct {
	Message   string    `json:"msg"`
	Worker    string    `json:"worker"`
	Reason    string    `json:"reason"`
	RestartIn duration  `json:"restart_in"`
	Time      time.Time `json:"time"`
}

// duration is a duration in the format of the JSON log, "1.5s".
type duration struct{ time.Duration }

func (d *duration) UnmarshalText(text []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(text))
	return err
}

// Logged returns the lines of a master's log with the message.
func (m *Master) Logged(message string) (records []LogLine) {
	m.Host.T.Helper()
	for line := range strings.Lines(m.Log()) {
		if !strings.HasSuffix(line, "\n") {
			break // the kernel shows a line in two parts if it crosses a page
		}
		var r LogLine
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			m.Host.T.Errorf("not a line of log: %q: %v", line, err)
		} else if r.Message == message {
			records = append(records, r)
		}
	}
	return records
}
