package describe

import (
	"fmt"
	"io"
	"strings"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
)

// unitRecords prints a table with a line for each unit.
func unitRecords(w io.Writer, units []*adminpb.Unit) error {
	table := render.NewTable("UNIT", "KIND", "REPLICAS", "NOTE")
	for _, u := range units {
		table.Row(render.Printable(u.GetName()), render.Printable(render.OrDash(u.GetKind())), replicas(u), unitNote(u))
	}
	return table.Print(w)
}

// replicas returns the number of workers of a unit, and the configured one if an operator has set another.
func replicas(u *adminpb.Unit) string {
	if u.Scale != nil {
		return fmt.Sprintf("%d of %d configured", u.GetScale(), u.GetReplicas())
	}
	return fmt.Sprint(u.GetReplicas())
}

func unitNote(u *adminpb.Unit) string {
	var notes []string
	if u.Scale != nil {
		notes = append(notes, "scaled")
	}
	if u.GetDisabled() {
		notes = append(notes, "disabled")
	}
	if u.GetRetired() {
		notes = append(notes, "retired")
	}
	return strings.Join(notes, ", ")
}

// Scales prints the numbers of workers that an operator has set.
func Scales(w io.Writer, units []*adminpb.Unit) {
	for _, u := range units {
		if u.Scale != nil {
			fmt.Fprintf(w, "\n%s is scaled: %s\n", render.Printable(u.GetName()), replicas(u))
		}
	}
}
