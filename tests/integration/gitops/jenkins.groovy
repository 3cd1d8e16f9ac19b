// Runs a declarative Jenkinsfile: Groovy reads it, `sh` runs a real shell, the rest is kept small.
//
//   groovy jenkins.groovy JENKINSFILE change|main [NAME=VALUE...]
//
// `change` builds a pull request, `main` that branch; the rest are parameters. Ends with 0 for
// SUCCESS, 1 for FAILURE, 2 for UNSTABLE. What it does not know is an error, so a misspelt step is.

class Failed extends Exception {
    Failed(String message) { super(message) }
}

abstract class Jenkins extends Script {
    static String event
    static Map<String, String> given = [:]
    static Map<String, String> variables = [:]
    static Map<String, String> params = [:]
    static boolean doubtful = false
    static String current = ''
    static boolean chosen = true

    private void within(Closure body, Object delegate = this) {
        body.delegate = delegate
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body.call()
    }

    // Sections.
    void pipeline(Closure body) { within(body) }
    void agent(Closure body) { within(body) }
    void label(String name) {}
    void options(Closure body) { within(body) }
    void disableConcurrentBuilds() {}
    void timeout(Map how) { assert how.unit in ['SECONDS', 'MINUTES', 'HOURS'] && how.time > 0 }
    void parameters(Closure body) { within(body) }
    void string(Map how) {
        params[how.name] = given.getOrDefault(how.name, how.defaultValue)
        variables[how.name] = params[how.name]
    }
    void environment(Closure body) { within(body, variables) }
    // The one credential: a file, whose path is in the environment already.
    String credentials(String id) { System.getenv('KUBECONFIG') }
    void stages(Closure body) { within(body) }
    void stage(String name, Closure body) {
        chosen = true
        current = name
        within(body)
    }
    void when(Closure body) { within(body) }
    void changeRequest() { chosen = event == 'change' }
    void branch(String name) { chosen = event == name }
    void steps(Closure body) {
        if (!chosen) { return }
        println "[stage] ${current}"
        within(body)
    }

    // Steps.
    void script(Closure body) { within(body) }
    Object sh(String text) { sh(script: text) }
    Object sh(Map how) {
        assert how.keySet() - ['script', 'label', 'returnStatus'] == [] as Set
        def builder = new ProcessBuilder('sh', '-xe', '-c', how.script as String)
        builder.environment().putAll(variables)
        System.out.flush()
        int code = builder.redirectErrorStream(true).inheritIO().start().waitFor()
        if (how.returnStatus) { return code }
        if (code != 0) { throw new Failed("script returned exit code ${code}") }
    }
    void archiveArtifacts(Map how) {
        assert how.keySet() - ['artifacts', 'allowEmptyArchive'] == [] as Set && how.artifacts
    }
    void error(String message) { throw new Failed(message) }
    void unstable(String message) {
        println "WARNING: ${message}"
        doubtful = true
    }
}

Jenkins.event = args[1]
args.drop(2).each {
    def (name, value) = it.split('=', 2)
    Jenkins.given[name] = value
}
def settings = new org.codehaus.groovy.control.CompilerConfiguration(scriptBaseClass: Jenkins.name)
def shell = new GroovyShell(this.class.classLoader, new Binding(), settings)
try {
    shell.evaluate(new File(args[0]))
} catch (Failed failure) {
    println "ERROR: ${failure.message}"
    System.exit(1)
}
System.exit(Jenkins.doubtful ? 2 : 0)
