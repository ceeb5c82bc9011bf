package config

import (
	"os"
	"regexp"
	"testing"
)

// The files that README.md and docs/CONFIGURATION.md show are valid.
func TestDocumentsShowValidFiles(t *testing.T) {
	block := regexp.MustCompile("(?s)\n```yaml\n(.*?)```\n")
	for _, document := range []string{"../README.md", referenceFile} {
		content, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		shown := block.FindAllSubmatch(content, -1)
		if len(shown) == 0 {
			t.Errorf("%s shows no file", document)
		}
		for _, text := range shown {
			if len(mustLoad(t, string(text[1])).Units) == 0 {
				t.Errorf("a file in %s has no units:\n%s", document, text[1])
			}
		}
	}
}
