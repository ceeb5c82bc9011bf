package history

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/user"
	"strconv"
	"time"

	"github.com/core-tools/hsu-master/store/records"
)

// Line is an event as "events --json" prints it and the commands of "on_event" read it. Scripts depend on it.
type Line struct {
	Seq      uint64    `json:"seq"` // for "events --after"
	Time     time.Time `json:"time"`
	Type     string    `json:"type"`
	Worker   string    `json:"worker,omitempty"`
	Unit     string    `json:"unit,omitempty"` // of the worker too
	Detail   string    `json:"detail,omitempty"`
	Operator *Operator `json:"operator,omitempty"` // whose command was the cause
}

// Operator is the user of a command.
type Operator struct {
	UID     uint32 `json:"uid"`
	User    string `json:"user,omitempty"`
	Command string `json:"command,omitempty"`
}

// LineOf returns the line of an event.
func LineOf(e records.Entry) Line {
	line := Line{Seq: e.Seq, Time: e.Time, Type: e.Type, Worker: e.Worker, Unit: e.UnitName(), Detail: e.Detail}
	if e.Operator != nil {
		line.Operator = OperatorOf(e.Operator)
	}
	return line
}

// OperatorOf returns the operator with the name that the user has on this host.
func OperatorOf(o *records.Operator) *Operator {
	return &Operator{UID: o.UID, User: UserName(o.UID), Command: o.Command}
}

// UserName returns the name of a user of this host, "" if it has none.
func UserName(uid uint32) string {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return ""
	}
	return u.Username
}

// JSON returns the event as a line of JSON with its newline.
func JSON(e records.Entry) ([]byte, error) {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(LineOf(e)); err != nil {
		return nil, fmt.Errorf("encode event %d: %w", e.Seq, err)
	}
	return line.Bytes(), nil
}
