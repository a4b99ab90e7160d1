/* A libnvinfer for the Python bindings that hands every call on to TensorRT-RTX.
 *
 * -DBUILDER and -DPARSER name the two libraries. The bindings pass their own version, which the
 * builder would refuse: it gets its own instead. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static void *find(const char *file, const char *name)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_GLOBAL);
    void *symbol = library ? dlsym(library, name) : NULL;
    if (symbol == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(2);
    }
    return symbol;
}

static int32_t builder_version(void)
{
    return ((int32_t (*)(void))find(BUILDER, "getInferLibVersion"))();
}

/* The parser takes its symbols from the builder, which therefore is loaded first. */
static void *find_in_parser(const char *name)
{
    builder_version();
    return find(PARSER, name);
}

#define MAKES(name)                                                                    \
    void *name(void *logger, int32_t version)                                          \
    {                                                                                  \
        (void)version;                                                                 \
        return ((void *(*)(void *, int32_t))find(BUILDER, #name))(logger, builder_version()); \
    }
#define MAKES_FOR(name, look_up)                                                       \
    void *name(void *subject, void *logger, int32_t version)                           \
    {                                                                                  \
        return ((void *(*)(void *, void *, int32_t))look_up)(subject, logger, version); \
    }

MAKES(createInferBuilder_INTERNAL)
MAKES(createInferRuntime_INTERNAL)
MAKES_FOR(createInferRefitter_INTERNAL, find(BUILDER, "createInferRefitter_INTERNAL"))
MAKES_FOR(createNvOnnxParser_INTERNAL, find_in_parser("createNvOnnxParser_INTERNAL"))
MAKES_FOR(createNvOnnxParserRefitter_INTERNAL,
          find_in_parser("createNvOnnxParserRefitter_INTERNAL"))

void *getPluginRegistry(void)
{
    return ((void *(*)(void))find(BUILDER, "getPluginRegistry"))();
}

void *getBuilderPluginRegistry(int32_t capability)
{
    return ((void *(*)(int32_t))find(BUILDER, "getBuilderPluginRegistry"))(capability);
}

int32_t getNvOnnxParserVersion(void)
{
    return ((int32_t (*)(void))find_in_parser("getNvOnnxParserVersion"))();
}

int initLibNvInferPlugins(void *logger, const char *name_space)
{
    (void)logger;
    (void)name_space;
    return 1;
}
