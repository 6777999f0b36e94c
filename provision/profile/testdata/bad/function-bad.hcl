nodeprov { schema = 1 }
sysctl = {
  "a.a" = at_leats(4096)
  "a.b" = at_least("many")
  "a.c" = at_least()
  "a.d" = at_least(null)
  "a.e" = max(1, "x")
  "a.f" = tonumber("x")
  "a.g" = cidrhost("10.0.0.0", 1)
  "a.h" = regex("(", "x")
  "a.i" = index([1, 2], 3)
  "a.j" = length(4)
  "a.k" = max(1, at_least(2))
  "a.l" = "${at_least(2)}"
  "a.m" = try(tonumber("x"), tobool("y"))
}
