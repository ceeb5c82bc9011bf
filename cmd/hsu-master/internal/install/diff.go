package install

import (
	"slices"
	"strings"
)

// changedSettings returns the settings that differ between two unit files: those of the first after "- ", those of the
// second after "+ ", in the order of the files.
func changedSettings(before, after string) []string {
	a, b := settingsOf(before), settingsOf(after)
	// common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i, x := range slices.Backward(a) {
		for j, y := range slices.Backward(b) {
			if x == y {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var lines []string
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			lines = append(lines, "- "+a[i])
			i++
		default:
			lines = append(lines, "+ "+b[j])
			j++
		}
	}
	return lines
}

// settingsOf returns the lines of a unit file that are neither blank nor a comment.
func settingsOf(unit string) []string {
	return slices.DeleteFunc(strings.Split(unit, "\n"), func(line string) bool {
		return line == "" || line[0] == '#'
	})
}
