package model

// MaxName is the most bytes a name has.
const MaxName = 63

// ValidateName holds the one grammar of every name a person gives: letters,
// digits, dot, dash and underscore, starting with a letter or a digit. Such a
// name is safe in a path, a URL, a shell and an XML document. What is the noun
// for the error.
func ValidateName(what, name string) error {
	if name == "" {
		return Errorf(Invalid, "a %s needs a name", what)
	}
	if len(name) > MaxName {
		return Errorf(Invalid, "the name of a %s has at most %d characters, not %d", what, MaxName, len(name))
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '-' && c != '_') {
			return Errorf(Invalid, "the name %q of a %s may hold letters, digits, '.', '-' and '_' only, and starts with a letter or digit", name, what)
		}
	}
	return nil
}
