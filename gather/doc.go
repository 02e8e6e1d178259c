// Package gather scatters requests over the workers of a queue and gathers exactly
// one result for each.
//
//	client, err := gather.New(ctx, broker, "resize", gather.Config{})
//	…
//	defer client.Close(ctx)
//	for r, err := range gather.Map[Thumbnail](ctx, client, images) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(r.Index, r.Value)
//	}
//
// [Map] streams any number of inputs and yields the results as they come,
// [MapOrdered] in the order of the inputs; [Call] asks once, and [Submit] asks now
// and waits later. Inputs and outputs are JSON in messages, but for []byte and
// string, which are passed as they are.
//
// # What is promised
//
//   - Every request ends in exactly one result, a value or an error; the first one
//     that arrives wins, and what else arrives for it is dropped. A client sees
//     results of its own requests only, whoever else uses the queue.
//   - Requests that the broker has forgotten are published again under the same ids.
//   - Memory is bounded by a window of requests that are outstanding or whose results
//     are not read yet, whatever the number of inputs. Room for a result is reserved
//     before its request is published.
//   - A broker that is lost ends every loop and every wait with an error. So does the
//     end of a context; what was asked for is then cancelled, running or not.
//
// # What it does not do
//
// A task may run more than once, though it has one result: see package worker. A
// client does not outlive its process: a job whose client is gone is not resumed. The
// reply topic of one that was killed is removed by the workers of the queue that it has
// found there or that have answered it, half a minute later; what it asked for is then no
// longer run.
package gather
