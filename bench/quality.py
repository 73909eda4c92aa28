def passage(): return "x"
