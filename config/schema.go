package config

import "encoding/json"

// Schema returns the JSON Schema of a file. Editors use it to complete and check the text.
func Schema() any {
	schema := objectSchema(new(File).keys())
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "hsu-master configuration"
	return schema
}

// schemaOf returns the schema of a form. YAML reads a text such as 8080 as a number, so a text can be one.
func schemaOf(f form) map[string]any {
	switch {
	case f.keys != nil:
		return objectSchema(f.keys)
	case f.json == "object":
		return map[string]any{"type": []string{"object", "null"}, "additionalProperties": schemaOf(*f.items)}
	case f.json == "array":
		list := map[string]any{"type": []string{"array", "null"}, "items": schemaOf(*f.items)}
		if f.words == nil {
			return list
		}
		return either(list, map[string]any{"enum": f.words})
	case f.allowed != nil:
		return either(map[string]any{"enum": f.allowed}, reference)
	case f.json == "string" && f.pattern == "":
		return map[string]any{"type": []string{"string", "number", "boolean"}}
	case f.json == "string":
		text := map[string]any{"type": []string{"string", "integer"}, "pattern": f.pattern}
		if f.words == nil {
			return text
		}
		return either(text, map[string]any{"enum": f.words})
	}
	number := map[string]any{"type": f.json}
	if f.least != nil {
		number["minimum"] = *f.least
	}
	if f.most != nil {
		number["maximum"] = *f.most
	}
	choices := []any{number, reference}
	if f.words != nil {
		choices = append(choices, map[string]any{"enum": f.words})
	}
	return either(choices...)
}

// reference is a text that names a variable, in place of a value that is no text.
var reference = map[string]any{"type": "string", "pattern": `\$\{`}

func either(choices ...any) map[string]any { return map[string]any{"anyOf": choices} }

func objectSchema(keys []key) map[string]any {
	properties := map[string]any{}
	for _, k := range keys {
		property := schemaOf(k.value.form())
		property["description"] = k.doc
		if k.def != "" {
			property["default"] = defaultInJSON(k)
		}
		properties[k.name] = property
	}
	return map[string]any{
		"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false,
		"patternProperties": map[string]any{"^" + ignoredPrefix: true},
	}
}

// defaultInJSON returns the default of a key with the type that it has in JSON.
func defaultInJSON(k key) any {
	var value any
	if k.value.form().json != "string" && json.Unmarshal([]byte(k.def), &value) == nil {
		return value
	}
	return k.def
}
