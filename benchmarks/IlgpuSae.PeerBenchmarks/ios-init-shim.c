/* libstdc++ 13 initialises its streams by this call; older ones do it by a static object in every translation unit,
   which has happened once libstdc++ itself is loaded. So an empty body is right. */
void _ZSt21ios_base_library_initv(void) {}
