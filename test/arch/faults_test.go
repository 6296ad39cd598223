package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFaultPoints holds the three places together in which a crash point stands: its
// constant, fault.Points, and the code that passes it. A test that walks the points
// would otherwise prove nothing for one that is never passed.
func TestFaultPoints(t *testing.T) {
	t.Parallel()
	declared, listed := declaredPoints(t)
	passed := passedPoints(t)
	if len(declared) == 0 {
		t.Fatal("internal/fault declares no point")
	}
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		if !listed[name] {
			t.Errorf("fault.%s is not in fault.Points", name)
		}
		if len(passed[name]) == 0 {
			t.Errorf("no code passes fault.%s", name)
		}
	}
	for name, files := range passed {
		if !declared[name] {
			t.Errorf("%v: fault.Point takes a constant of package fault, not %q", files, name)
		}
	}
}

// declaredPoints are the constants of type Name, and the elements of Points.
func declaredPoints(t *testing.T) (declared, listed map[string]bool) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(top, "internal/fault/fault.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared, listed = map[string]bool{}, map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Name" {
			declared[spec.Names[0].Name] = true
		}
		if spec.Names[0].Name == "Points" {
			for _, element := range spec.Values[0].(*ast.CompositeLit).Elts {
				listed[element.(*ast.Ident).Name] = true
			}
		}
		return true
	})
	return declared, listed
}

// passedPoints finds the calls of fault.Point outside tests: the name of the
// argument, and the files it stands in.
func passedPoints(t *testing.T) map[string][]string {
	t.Helper()
	passed := map[string][]string{}
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != top && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if name, ok := pointArgument(n); ok {
				passed[name] = append(passed[name], path)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return passed
}

// pointArgument is X of fault.Point(fault.X); "" for any other argument.
func pointArgument(n ast.Node) (name string, ok bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || !isFault(call.Fun, "Point") {
		return "", false
	}
	if argument, ok := call.Args[0].(*ast.SelectorExpr); ok && isFault(argument, argument.Sel.Name) {
		return argument.Sel.Name, true
	}
	return "", true
}

func isFault(e ast.Expr, name string) bool {
	selector, ok := e.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != name {
		return false
	}
	of, ok := selector.X.(*ast.Ident)
	return ok && of.Name == "fault"
}
