package tenement

import (
	"cmp"
	"fmt"
	"strings"
)

// maxLabel is the longest DNS label (RFC 1035 §2.3.4).
const maxLabel = 63

// InstanceID names one instance: a service and, within it, a tenant. It is
// written "service:name" everywhere a person or a program meets it.
type InstanceID struct {
	Service string
	Name    string
}

func (id InstanceID) String() string { return id.Service + ":" + id.Name }

// IsZero reports whether id names nothing.
func (id InstanceID) IsZero() bool { return id == InstanceID{} }

// Compare orders by service, then by name: negative, 0 or positive as id comes
// before, is, or comes after other.
func (id InstanceID) Compare(other InstanceID) int {
	return cmp.Or(cmp.Compare(id.Service, other.Service), cmp.Compare(id.Name, other.Name))
}

// MarshalText writes id as "service:name", so that JSON and SQL carry one form.
func (id InstanceID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is [ParseInstanceID] for encoders.
func (id *InstanceID) UnmarshalText(text []byte) error {
	parsed, err := ParseInstanceID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// ParseInstanceID reads "service:name". Both halves must be valid names; an
// error has CodeInvalid and says which half is wrong.
func ParseInstanceID(s string) (InstanceID, error) {
	service, name, ok := strings.Cut(s, ":")
	if !ok {
		return InstanceID{}, &Error{
			Code: CodeInvalid, Op: "parse instance",
			Err:  fmt.Errorf("%q is not an instance", s),
			Hint: "write service:id, such as api:alice",
		}
	}
	if err := CheckServiceName(service); err != nil {
		return InstanceID{}, err
	}
	if err := CheckInstanceName(name); err != nil {
		return InstanceID{}, err
	}
	return InstanceID{Service: service, Name: name}, nil
}

// CheckServiceName accepts one lower-case DNS label: [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?
// Anything else is an error with CodeInvalid.
func CheckServiceName(s string) error {
	return checkLabel("service", s, false)
}

// CheckInstanceName accepts what [CheckServiceName] does and, inside the name,
// underscores: browsers and resolvers let them pass, and existing ids have them.
func CheckInstanceName(s string) error {
	return checkLabel("instance", s, true)
}

// ValidInstanceName reports what [CheckInstanceName] checks, without allocating:
// it is asked about every host name that strangers send.
func ValidInstanceName(s string) bool { return isLabel(s, true) }

func checkLabel(what, s string, underscore bool) error {
	if isLabel(s, underscore) {
		return nil
	}
	return &Error{
		Code: CodeInvalid, Op: "check name",
		Err:  fmt.Errorf("%q is not a valid %s name", s, what),
		Hint: "1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
	}
}

func isLabel(s string, underscore bool) bool {
	if s == "" || len(s) > maxLabel {
		return false
	}
	for i := range len(s) {
		c := s[i]
		inside := i > 0 && i < len(s)-1
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '-' && inside:
		case c == '_' && inside && underscore:
		default:
			return false
		}
	}
	return true
}
