//go:build !unix

package logs

import (
	"errors"
	"os"
)

// JournalSocket is empty: there is no journal here.
const JournalSocket = ""

// OpenJournal returns an error: there is no journal here.
func OpenJournal(string, string) (*os.File, error) {
	return nil, errors.New("open the journal: this system has none")
}

// JournalStream returns "".
func JournalStream(*os.File) string { return "" }
