// Asks Porcupine whether histories of locks are linearisable. JSON in, JSON out; see integration/linearisable.py.
//
// A lock is a register of two numbers: the token of its holder, 0 for none, and the greatest token that was given. An acquire
// writes its own token where there is no holder and the token is greater; a release takes away the holder that it names.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/anishathalye/porcupine"
)

type operation struct {
	Acquire bool
	Token   int64
	Call    int64
	Return  int64
}

type lock struct {
	holder int64
	last   int64
}

var model = porcupine.Model{
	Init: func() interface{} { return lock{} },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		now, asked := state.(lock), input.(operation)
		if asked.Acquire {
			return now.holder == 0 && asked.Token > now.last, lock{asked.Token, asked.Token}
		}
		return now.holder == asked.Token, lock{0, now.last}
	},
}

func main() {
	var histories map[string][]operation
	if err := json.NewDecoder(os.Stdin).Decode(&histories); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	answers := map[string]bool{}
	for name, history := range histories {
		var operations []porcupine.Operation
		for _, each := range history {
			operations = append(operations, porcupine.Operation{Input: each, Call: each.Call, Return: each.Return})
		}
		answers[name] = porcupine.CheckOperations(model, operations)
	}
	json.NewEncoder(os.Stdout).Encode(answers)
}
