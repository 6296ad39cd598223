package config

import (
	"bytes"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// node is one value of the file and its place in it. All of its tables have the
// kind unstable.Table, however they are written.
type node struct {
	key   string // its name in the table that has it; "" in an array
	keyAt int    // byte offset of that name
	at    int    // byte offset of the value; of the name for a table with a header
	kind  unstable.Kind
	raw   string           // a scalar as written, quotes included
	text  string           // the value of a string
	items []*node          // of a table or an array, in the order of the file
	index map[string]*node // of a table: items by key
}

// parseDocument makes a tree of the text. The error is a *toml.DecodeError.
func parseDocument(text []byte) (*node, error) {
	// Decoding finds what the parser of single expressions cannot: keys and
	// tables that are defined twice, numbers too large, dates that do not exist.
	var discard map[string]any
	if err := toml.Unmarshal(text, &discard); err != nil {
		return nil, err
	}
	parser := unstable.Parser{}
	parser.Reset(text)
	root := newTable("", 0)
	table := root
	for parser.NextExpression() {
		expression := parser.Expression()
		switch expression.Kind {
		case unstable.Table:
			table = root.descend(keys(expression))
		case unstable.ArrayTable:
			table = root.extend(keys(expression))
		case unstable.KeyValue:
			table.assign(text, expression)
		}
	}
	return root, parser.Error()
}

func newTable(key string, at int) *node {
	return &node{key: key, keyAt: at, at: at, kind: unstable.Table, index: map[string]*node{}}
}

// keyPart is one name of a dotted key.
type keyPart struct {
	name string
	at   int
	end  int // byte offset after it, quotes included
}

func keys(expression *unstable.Node) []keyPart {
	var parts []keyPart
	for it := expression.Key(); it.Next(); {
		part := it.Node()
		at := int(part.Raw.Offset)
		parts = append(parts, keyPart{name: string(part.Data), at: at, end: at + int(part.Raw.Length)})
	}
	return parts
}

func (n *node) add(child *node) {
	n.items = append(n.items, child)
	if n.index != nil {
		n.index[child.key] = child
	}
}

// descend is the table at path below n; what is missing on the way is made. An
// array of tables stands for its last table (TOML 1.0.0, Array of Tables).
func (n *node) descend(path []keyPart) *node {
	for _, part := range path {
		next := n.index[part.name]
		if next == nil {
			next = newTable(part.name, part.at)
			n.add(next)
		}
		if next.kind == unstable.Array && len(next.items) > 0 {
			next = next.items[len(next.items)-1]
		}
		n = next
	}
	return n
}

// extend adds an empty table to the array of tables at path.
func (n *node) extend(path []keyPart) *node {
	last := path[len(path)-1]
	parent := n.descend(path[:len(path)-1])
	array := parent.index[last.name]
	if array == nil {
		array = &node{key: last.name, keyAt: last.at, at: last.at, kind: unstable.Array}
		parent.add(array)
	}
	table := newTable("", last.at)
	array.add(table)
	return table
}

// assign adds the key and value of one expression.
func (n *node) assign(text []byte, expression *unstable.Node) {
	path := keys(expression)
	last := path[len(path)-1]
	// The parser gives arrays no place of their own: it is after the "=".
	at := last.end + bytes.IndexByte(text[last.end:], '=') + 1
	for at < len(text) && (text[at] == ' ' || text[at] == '\t') {
		at++
	}
	child := newValue(text, expression.Value(), at)
	child.key, child.keyAt = last.name, last.at
	n.descend(path[:len(path)-1]).add(child)
}

func newValue(text []byte, value *unstable.Node, at int) *node {
	n := &node{kind: value.Kind, at: at}
	switch value.Kind {
	case unstable.InlineTable:
		n.kind, n.index = unstable.Table, map[string]*node{}
		for it := value.Children(); it.Next(); {
			n.assign(text, it.Node())
		}
	case unstable.Array:
		for it := value.Children(); it.Next(); {
			item := it.Node()
			place := at // an array within an array has none
			if item.Raw.Length > 0 {
				place = int(item.Raw.Offset)
			}
			n.items = append(n.items, newValue(text, item, place))
		}
	default:
		n.raw = string(text[value.Raw.Offset : value.Raw.Offset+value.Raw.Length])
		n.text = string(value.Data)
	}
	return n
}

// offset is where the byte at index of a string's value stands in the file, or
// where the string begins when it is not written as it is.
func (n *node) offset(index int) int {
	if n.raw == `"`+n.text+`"` || n.raw == "'"+n.text+"'" {
		return n.at + 1 + index
	}
	return n.at
}
