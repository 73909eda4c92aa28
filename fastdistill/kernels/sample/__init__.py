"""Drawing tokens: chance by counter, processors, laws."""
