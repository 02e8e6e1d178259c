package broker_test

const holdDirectory = "MILLRACE_TEST_HOLD_DIRECTORY"

func holdDir(string) int { return 0 }
