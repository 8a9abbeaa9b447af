module bench

go 1.18

require amptoken v0.0.0

replace amptoken => ../../../bindings/recipes/go
