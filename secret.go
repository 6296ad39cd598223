package tenement

// Secret is a text that is for one program only: whatever prints it, prints "(secret)".
type Secret string

const hiddenSecret = "(secret)"

func (Secret) String() string { return hiddenSecret }

// GoString is for %#v.
func (Secret) GoString() string { return hiddenSecret }

// MarshalText is for JSON, slog and the like.
func (Secret) MarshalText() ([]byte, error) { return []byte(hiddenSecret), nil }
